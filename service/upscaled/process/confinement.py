"""Confine processes: a child drops rights and ends with its parent, whose memory it cannot read.

A parent holds secrets: the database's password, keys of a bucket, a cluster's token. Its children,
which parse hostile bytes, run as the same user, and the system lets a process read the environment,
memory and open files of each other one of its user (ptrace(2), "Ptrace access mode checking").
There are two barriers, since a kernel may lack one of them: the parent closes its memory
(`hide_memory`), and a child gives up its right to read others (`give_up_other_processes`).
"""

import argparse
import ctypes
import fcntl
import os
import resource
import select
import signal
import struct
import sys
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final

_IGNORED_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that may reach a whole process group or control group; the parent decides what ends."""

NO_MEMORY_STATUS: Final = 75
"""Exit status of a child that found no memory to hand its result over in: the machine lacks it, and
its input is not to blame (EX_TEMPFAIL of sysexits.h)."""

_STDERR: Final = 2

_MAX_CAPTURED_BYTES: Final = 64 * 1024
"""Limits what is read of captured standard error at once: as much as a pipe of Linux holds."""
# prctl(2)
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# landlock(7); the numbers of its calls are the same on every architecture.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_RENAME_ACROSS_FOLDERS: Final = 1 << 13
_FIRST_VERSION_WITH_IT: Final = 2  # Linux 5.19

_NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
_NVIDIA_MEMORY: Final = Path("/dev/nvidia-uvm")


class OomScore(IntEnum):
    """Order in which the kernel ends child processes where memory ends, the highest first.

    A score of 0 to 1000 is added to how much memory a process has (proc_pid_oom_score_adj(5)). The
    front end has 0: all others are replaced at a lower price.
    """

    WORKER = 500
    FETCHER = 800
    DECODER = 900


def child_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser for the arguments that `upscaled.process.child` starts a program with."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    parser.add_argument("--lifeline", type=int, required=True, help="a pipe the parent holds open")
    return parser


def confine(lifeline: int, oom_score: OomScore, *, keeps_setuid: bool = False) -> None:
    """Leave the end of this process to its parent (`die_with`), and to the kernel's OOM killer.

    It can then read no process but those that it starts (`give_up_other_processes`), unless it has
    to start setuid programs. To be called before there are threads.
    """
    if not keeps_setuid:
        give_up_other_processes()
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    die_with(lifeline)
    with suppress(OSError):  # a sandbox may hide the file
        Path("/proc/self/oom_score_adj").write_text(str(oom_score.value))


def die_with(lifeline: int) -> None:
    """Have the kernel kill this process once its parent is gone: the other end of a pipe closes.

    Neither C code that hangs nor a stop (SIGSTOP, a debugger that is gone) prevents it. Where no
    other signal than SIGIO can be chosen, a stopped process ends when it is continued.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    with suppress(AttributeError, OSError):  # only Linux has it, and not every sandbox
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it went before the signal was set up
        os._exit(0)


def lower_priority(niceness: int) -> None:
    """Lower the priority of the calling thread by a niceness; 0 leaves it unchanged.

    Only Linux has a priority of one thread. Elsewhere the process is left as it is.
    """
    if niceness and sys.platform == "linux":
        os.nice(niceness)


def limit_files(max_open: int) -> None:
    """Forbid core files, which would hold images, and more than `max_open` descriptors."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_open, max_open))


def limit_softly(kind: int, wanted: int) -> None:
    """Set a soft limit of `resource.setrlimit`, no higher than the hard one allows."""
    _, hard = resource.getrlimit(kind)
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (soft, hard))


def measure_address_space() -> int | None:
    """Return the bytes of address space that this process has; None where there is no /proc."""
    return _read_statm(0)


def measure_resident() -> int | None:
    """Return the bytes of this process's memory that are in RAM; None where there is no /proc."""
    return _read_statm(1)


def _read_statm(field: int) -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[field])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize()


class CapturedStderr:
    """Standard error of this process, read instead of shown: for what libraries in C print.

    Python's own `sys.stderr` is to be moved to another descriptor before. What is printed when the
    pipe is full is lost: 65,000 lines for one hostile file have been seen.
    """

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        for end in (self._reading, writing):
            os.set_blocking(end, False)
        os.dup2(writing, _STDERR)
        os.close(writing)

    def read(self) -> str:
        """Return what was printed since the last call, or as much of it as the pipe holds."""
        with suppress(BlockingIOError):
            return os.read(self._reading, _MAX_CAPTURED_BYTES).decode(errors="replace")
        return ""


def hide_memory() -> None:
    """Keep other processes of this user out of this one's memory, environment and open files.

    Forked processes stay hidden, those that run another program do not. The system writes no core
    dump of a hidden process, and only root can attach a debugger or a profiler to it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_up_other_processes() -> bool:
    """Drop the rights to read other processes, except children, and to run setuid programs.

    It holds for the calling thread and the threads and processes that it starts, so it belongs
    before all threads. Root is held to it only without CAP_PERFMON and CAP_SYS_ADMIN: with either,
    newer kernels (6.18, say) still let a process read all others.

    Returns:
        Whether the kernel has Landlock and lets this process use it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < _FIRST_VERSION_WITH_IT:
        return False
    # There is no empty ruleset. This one forbids nothing about files: the one right that every
    # ruleset must restrict is granted for all folders.
    rights = struct.pack("=Q", _RENAME_ACROSS_FOLDERS)
    ruleset = libc.syscall(_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    if ruleset < 0:
        return False
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _RENAME_ACROSS_FOLDERS, root)
        return not (
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
            or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            or libc.syscall(_RESTRICT_SELF, ruleset, 0)
        )
    finally:
        os.close(root)
        os.close(ruleset)


def needs_setuid_programs() -> bool:
    """Return whether the NVIDIA GPU of this machine has not been used since its start.

    Its driver then has a setuid program, nvidia-modprobe, make the device's files.
    """
    return _NVIDIA_DRIVER.exists() and not _NVIDIA_MEMORY.exists()
