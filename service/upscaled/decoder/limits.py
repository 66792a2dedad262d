"""Limit what one file may take of a decoder process.

All limits are the kernel's own: no line of Python has to run for them to work, for a decoder that
hangs in C code runs none. A process that goes over its time is ended by a signal; one that asks for
more memory gets none.
"""

import resource
import signal
from dataclasses import dataclass
from typing import Final

from upscaled.image.colour import MAX_PROFILE_BYTES
from upscaled.process.confinement import limit_softly

MIB = 1024 * 1024
# A header is read by walking it: 2 s of work is 20 times what the longest one takes.
_HEADER_CPU_S = 2.0
_HEADER_MEMORY_BYTES = 192 * MIB
# Deep PNG with alpha uses most memory: 21 bytes a pixel at its peak (measured).
_BYTES_PER_PIXEL = 48
# 36 megapixels of PNG take 1.5 s; a progressive JPEG may pass over its pixels 100 times.
_CPU_S_PER_MEGAPIXEL = 0.5
# An arithmetic JPEG is decoded eight times to see that it is whole, each time in 0.13 s a megabyte.
_CPU_S_PER_SOURCE_BYTE = 1e-6
# Beside other work a second of computing takes several of waiting.
_WALL_S = 5.0
_WALL_PER_CPU = 2.5
# Colour and alpha take 4 bytes, 8 where they have 16 bits; 16 are room for more.
_RESULT_BYTES_PER_PIXEL = 16
_RESULT_BYTES = MIB + MAX_PROFILE_BYTES

NO_MEMORY_STATUS: Final = 75
"""Exit status of a decoder that had pixels and found no memory to hand them over in: the machine's
want, not the file's doing (EX_TEMPFAIL of sysexits.h)."""

# Ends that a file brings about: its decoder's crash in C code, and the kernel's answer to going
# over a limit set here or by RLIMIT_CPU. SIGALRM is not among them: what ends by that clock waited
# without computing, which no file can make it do and a stopped or starved process does.
_CRASHES: Final = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_SIGNALS_BY_FILE: Final = frozenset(
    _CRASHES | {signal.SIGTRAP, signal.SIGSYS, signal.SIGPROF, signal.SIGXCPU, signal.SIGXFSZ}
)


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Limits of one file: memory beyond what the idle process holds, time, bytes written."""

    memory_bytes: int
    cpu_s: float
    wall_s: float
    result_bytes: int


def limits_of(source_bytes: int, pixels: int = 0) -> FileLimits:
    """Return the limits of a file of `source_bytes`; `pixels` is 0 until its header is read."""
    cpu_s = _HEADER_CPU_S
    if pixels:
        cpu_s += _CPU_S_PER_MEGAPIXEL * pixels / 1e6 + _CPU_S_PER_SOURCE_BYTE * source_bytes
    return FileLimits(
        memory_bytes=_HEADER_MEMORY_BYTES + 4 * source_bytes + _BYTES_PER_PIXEL * pixels,
        cpu_s=cpu_s,
        wall_s=_WALL_S + _WALL_PER_CPU * cpu_s,
        result_bytes=_RESULT_BYTES + source_bytes + _RESULT_BYTES_PER_PIXEL * pixels,
    )


def constrain(limits: FileLimits, idle_bytes: int | None) -> None:
    """Hold this process to `limits` from now on, the clocks starting anew.

    `idle_bytes` of address space it had before its first file; None: memory has no limit.
    """
    if idle_bytes is not None:
        limit_softly(resource.RLIMIT_AS, idle_bytes + limits.memory_bytes)
    limit_softly(resource.RLIMIT_FSIZE, limits.result_bytes)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_s)


def is_fault_of_file(status: int) -> bool:
    """Return whether a decoder ended because of the file that it had at the time.

    An exit status of its own (a MemoryError under RLIMIT_AS, any other exception) and a crash are.
    SIGKILL is not: no limit here sends it, so the kernel's out-of-memory killer, an operator or
    another program did. `status` is as `subprocess.Popen.returncode`: negative for a signal.
    """
    if status >= 0:
        return status != NO_MEMORY_STATUS
    return -status in _SIGNALS_BY_FILE


def stop_clocks() -> None:
    """Stop the clocks that `constrain` has set: between two files no time runs."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
