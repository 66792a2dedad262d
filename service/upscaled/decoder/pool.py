"""Decode files in disposable processes: a file whose process dies is tried in a fresh one."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

from upscaled.decoder.messages import ProtocolError, pack_plan, unpack
from upscaled.errors import InternalError, MalformedImage, ServiceError
from upscaled.image.types import Image, MetadataPlan
from upscaled.logs import event
from upscaled.process.channel import FrameError, receive, send
from upscaled.process.child import Child, scrub_environment
from upscaled.process.confinement import NO_MEMORY_STATUS
from upscaled.process.supervision import SILENCE_S, ProcessHangs, Watchdog, describe_exit
from upscaled_models.processor import count_cores

DECODER_COMMAND: Final = (sys.executable, "-m", "upscaled.decoder.child")

MAX_DECODERS: Final = 4
"""Limits the files that are decoded at once: each uses a core for a moment, and memory."""

_MAX_FILE_S: Final = 120.0
"""Limits one file, where the decoder's own clocks (`upscaled.decoder.child`) failed to."""

_LEAST_BUSY_SHARE: Final = 0.125
"""Part of that time that a process computes if its file is at fault. Of good files only arithmetic
JPEGs of more than 14 MB take so much."""

_FILES_PER_PROCESS: Final = 500
"""Limits what files can leave behind in a process: after so many it is replaced."""

_SUCCESSOR_AT: Final = 450
"""Files after which the process that will replace it is started, so that no file waits for it."""

_MAX_DEATHS: Final = 2
"""Deaths of one cause after which a file is given up: two crashes mean that the file is malformed,
two kills from outside are an internal error."""

_MAX_EXIT_S: Final = 5.0
"""Limits the wait for the exit status of a process that has closed its socket."""

# Each thread of a pool would hold address space and a core, and none helps with one image.
_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
# Memory that is new for each file came in pages of 4 KiB: half of the time of a JPEG.
_TUNABLES, _LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"

# Signals that mean that the file is at fault: a crash in C code, and going over a limit.
_CRASHES: Final = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_SIGNALS_BY_FILE: Final = frozenset(
    _CRASHES | {signal.SIGTRAP, signal.SIGSYS, signal.SIGPROF, signal.SIGXCPU, signal.SIGXFSZ}
)

_log = logging.getLogger(__name__)


def decoder_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a decoder; what the operator has set of glibc's tunables wins."""
    inherited = scrub_environment(environment)
    tunables = [each for each in inherited.get(_TUNABLES, "").split(":") if each]
    if not any(each.partition("=")[0] == _LARGE_PAGES for each in tunables):
        tunables.append(f"{_LARGE_PAGES}=1")
    return {**inherited, **_ENVIRONMENT, _TUNABLES: ":".join(tunables)}


def count_decoders() -> int:
    """Return how many decoder processes suit this machine beside one network."""
    return max(2, min(MAX_DECODERS, count_cores()))


class DecoderDied(Exception):
    """The decoder exited, was killed, or sent an invalid reply; the text says how.

    is_by_file: the file is at fault, by a crash or by going over a limit of its own. Otherwise the
    process was killed from outside, stopped, or left without memory, and the file may be sound.
    """

    def __init__(self, text: str, *, is_by_file: bool) -> None:
        super().__init__(text)
        self.is_by_file = is_by_file


class DecoderProcess:
    """Decoder process; for one thread at a time."""

    def __init__(
        self, formats: Collection[str], command: Sequence[str], *, log_format: str = "auto"
    ) -> None:
        """Start the process; raises OSError where it cannot be started."""
        arguments = ["--formats", ",".join(formats), "--log-format", log_format]
        self.files = 0
        environment = decoder_environment(os.environ)
        self.child = Child([*command, *arguments], environment)

    def decode(
        self, source: bytes, plan: MetadataPlan | None, within_s: float, silence_s: float
    ) -> Image:
        """Decode one file; see `Decoder`.

        Raises:
            MalformedImage, ResolutionTooHigh, UnsupportedImageFormat: the file is refused.
            DecoderDied: no valid answer within that time; the process cannot be used again.
        """
        self.files += 1
        watchdog = Watchdog(self.child.pid, within_s=within_s, silence_s=silence_s)
        try:
            send(self.child.sock, pack_plan(plan), source, watchdog=watchdog)
            reply = receive(self.child.sock, takes_fd=True, watchdog=watchdog, max_payload_bytes=0)
            return unpack(reply)
        except ProcessHangs:
            text = f"hung, no processor time for {silence_s:g} s"
            raise DecoderDied(text, is_by_file=False) from None
        except TimeoutError:
            computed_s = watchdog.computed_s
            # Busy, and past limits that it should have died of; else it had hardly a core.
            is_busy = computed_s is None or computed_s >= within_s * _LEAST_BUSY_SHARE
            raise DecoderDied(f"no answer within {within_s:g} s", is_by_file=is_busy) from None
        except (FrameError, ProtocolError) as error:
            raise DecoderDied(f"broke the protocol: {error}", is_by_file=True) from error
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> DecoderDied:
        """Describe how the process ended, after it has closed its end of the socket."""
        status = self.child.wait(_MAX_EXIT_S)
        if status is None:
            return DecoderDied("closed its socket", is_by_file=True)
        is_full = status == NO_MEMORY_STATUS
        text = "no memory for its pixels" if is_full else describe_exit(status)
        return DecoderDied(text, is_by_file=is_fault_of_file(status))


class Decoder:
    """Decodes up to `processes` files at once, for any number of threads.

    Processes are started when they are needed and kept warm. `close` ends them; so does the end of
    this process, also by a kill.
    """

    def __init__(
        self,
        formats: Collection[str],
        *,
        processes: int,
        within_s: float = _MAX_FILE_S,
        silence_s: float = SILENCE_S,
        command: Sequence[str] = DECODER_COMMAND,
        log_format: str = "auto",
    ) -> None:
        """Make processes start when they are needed, up to `processes`.

        Args:
            formats: what is decoded; everything else is refused.
            within_s: a process that takes longer over one file is ended.
            silence_s: a process that uses no processor time for so long hangs, and is replaced.
            command: starts a decoder, with further arguments behind it; for tests.
        """
        self._formats = tuple(sorted(formats))
        self._within_s = within_s
        self._silence_s = silence_s
        self._command = command
        self._log_format = log_format
        self._slots = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[DecoderProcess] = []
        self._deaths = 0
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def deaths(self) -> int:
        """Return how many processes have died while they decoded a file."""
        return self._deaths

    def warm_up(self, processes: int = 1) -> None:
        """Start processes now, so that the first files do not wait; raises as `decode`."""
        for _ in range(processes):
            self._put_back(self._start())

    def decode(self, source: bytes, plan: MetadataPlan | None = None) -> Image:
        """Decode a file as `upscaled.image.decode.decode_file` does, in another process.

        plan: what of the file's metadata is kept for the result; None for nothing.

        Raises:
            MalformedImage: the file is refused, or two processes crashed over it or went over the
                limits of a file.
            ResolutionTooHigh, UnsupportedImageFormat: the file is refused.
            InternalError: two processes were killed from outside, or hung, while they decoded it.
            OSError: no process can be started.
        """
        with self._slots:
            # Their texts, by whether the file is at fault: an exception here would hold, by its
            # traceback, this frame, the file and its pixels until garbage is collected.
            deaths: dict[bool, list[str]] = {False: [], True: []}
            while True:
                has_died = any(deaths.values())
                process = (None if has_died else self._pop_idle()) or self._start()
                try:
                    return self._decode_in(process, source, plan)
                except DecoderDied as death:
                    self._note_death(death, process.child.pid, len(source))
                    alike = deaths[death.is_by_file]
                    alike.append(str(death))
                    if len(alike) == _MAX_DEATHS:
                        kind = MalformedImage if death.is_by_file else InternalError
                        text = f"{_MAX_DEATHS} decoders died over it: {'; '.join(alike)}"
                        raise kind(detail=text) from None

    def close(self) -> None:
        """End every process; a file that is being decoded is finished first, by its thread."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.child.end()

    def _note_death(self, death: DecoderDied, pid: int, source_bytes: int) -> None:
        with self._lock:
            self._deaths += 1
        cause = "file" if death.is_by_file else "outside"
        fields = event("decoder_died", pid=pid, source_bytes=source_bytes, cause=cause)
        _log.warning("a decoder died while it decoded a file: %s", str(death), extra=fields)

    def _decode_in(
        self, process: DecoderProcess, source: bytes, plan: MetadataPlan | None
    ) -> Image:
        try:
            image = process.decode(source, plan, self._within_s, self._silence_s)
        except BaseException as error:
            self._put_back(process, is_sound=isinstance(error, ServiceError))
            raise
        self._put_back(process)
        return image

    def _start(self) -> DecoderProcess:
        return DecoderProcess(self._formats, self._command, log_format=self._log_format)

    def _pop_idle(self) -> DecoderProcess | None:
        """Return an idle process, or None; those that died while they were idle are reaped."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                process = self._idle.pop()
            if process.child.is_alive:
                return process
            process.child.end()

    def _put_back(self, process: DecoderProcess, *, is_sound: bool = True) -> None:
        with self._lock:
            is_kept = is_sound and not self._is_closed and process.files < _FILES_PER_PROCESS
            if is_kept:  # a new process is used last
                self._idle.insert(len(self._idle) if process.files else 0, process)
        if not is_kept:
            process.child.end()
        elif process.files == _SUCCESSOR_AT:
            with suppress(OSError):  # it is then started when it is needed
                self._put_back(self._start())


def is_fault_of_file(status: int) -> bool:
    """Return whether a decoder ended because of the file that it had at the time.

    An exit status of its own (a MemoryError under RLIMIT_AS, any other exception) and a crash are.
    SIGKILL is not: no limit here sends it, so the kernel's out-of-memory killer, an operator or
    another program did. `status` is as `subprocess.Popen.returncode`: negative for a signal.
    """
    if status >= 0:
        return status != NO_MEMORY_STATUS
    return -status in _SIGNALS_BY_FILE
