"""Decoding files in disposable processes: a file whose process dies is tried in a fresh one."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from upscaled.decoder.process import DECODER_COMMAND, DecoderDied, DecoderProcess
from upscaled.errors import InternalError, MalformedImage, ServiceError
from upscaled.image.types import Image
from upscaled.logs import event
from upscaled.process.watchdog import SILENCE_S
from upscaled_models.processor import count_cores

MAX_DECODERS: Final = 4
"""Files decoded at once: each takes a core for a moment, and memory for its pixels."""

# The decoder's own clocks end it before: see `upscaled.decoder.limits`.
_WITHIN_S = 120.0
# After so many files a process makes room for a fresh one, whatever they left in it. That one is
# started some files before, so that nobody waits for it.
_FILES_PER_PROCESS = 500
_SUCCESSOR_AT = 450
# A file is given up with the second death of either cause: two crashes are the file's own fault,
# two deaths from outside are not, and say nothing of the file.
_DEATHS = 2

_log = logging.getLogger(__name__)


def _ignore() -> None:
    pass


def count_decoders() -> int:
    """How many processes suit this machine beside one network."""
    return max(2, min(MAX_DECODERS, count_cores()))


class Decoder:
    """Decodes up to `processes` files at once, for any number of threads.

    Processes are started when they are needed and kept warm. `close` ends them; so does the end of
    this process, however it comes.
    """

    def __init__(
        self,
        formats: Collection[str],
        *,
        processes: int,
        within_s: float = _WITHIN_S,
        silence_s: float = SILENCE_S,
        command: Sequence[str] = DECODER_COMMAND,
        log_format: str = "auto",
        on_death: Callable[[], None] = _ignore,
    ) -> None:
        """
        Args:
            formats: what is decoded; everything else is refused.
            within_s: a process that takes longer over one file is ended.
            silence_s: a process that uses no processor time for so long hangs, and is replaced.
            log_format: how a process tells of a fault of its own; see `upscaled.logs`.
            on_death: called, by any thread, when a process died while it had a file.
        """
        self._formats = tuple(sorted(formats))
        self._within_s = within_s
        self._silence_s = silence_s
        self._command = command
        self._log_format = log_format
        self._on_death = on_death
        self._places = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[DecoderProcess] = []
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def warm_up(self, processes: int = 1) -> None:
        """Start processes now, so that the first files do not wait for them.

        Raises:
            OSError: no process can be started.
        """
        for _ in range(processes):
            self._put_back(self._start())

    def decode(self, source: bytes) -> Image:
        """Decode a file as `upscaled.image.decode.decode_file` does, in another process.

        Raises:
            MalformedImage, ResolutionTooHigh, UnsupportedImageFormat: the file is refused.
            MalformedImage: two processes crashed over it, or went over the limits of a file.
            InternalError: two processes were killed from outside, or hung, while they had it.
            OSError: no process can be started.
        """
        with self._places:
            deaths: list[DecoderDied] = []
            while True:
                process = self._take_idle() if not deaths else None
                process = process or self._start()
                try:
                    return self._decode_in(process, source)
                except DecoderDied as death:
                    deaths.append(death)
                    self._note_death(death, process.pid, len(source))
                    alike = [str(each) for each in deaths if each.is_by_file == death.is_by_file]
                    if len(alike) == _DEATHS:
                        kind = MalformedImage if death.is_by_file else InternalError
                        text = f"{_DEATHS} decoders died over it: {'; '.join(alike)}"
                        raise kind(detail=text) from None

    def close(self) -> None:
        """End every process. Files under way are seen through first by their threads."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def pids(self) -> list[int]:
        """The processes that wait for a file."""
        with self._lock:
            return [process.pid for process in self._idle]

    def _note_death(self, death: DecoderDied, pid: int, source_bytes: int) -> None:
        self._on_death()
        cause = "file" if death.is_by_file else "outside"
        fields = event("decoder_died", pid=pid, source_bytes=source_bytes, cause=cause)
        _log.warning("a decoder died while it decoded a file: %s", death, extra=fields)

    def _decode_in(self, process: DecoderProcess, source: bytes) -> Image:
        is_reusable = False
        try:
            image = process.decode(source, self._within_s, self._silence_s)
            is_reusable = True
        except ServiceError:
            is_reusable = True
            raise
        finally:
            if is_reusable:
                self._put_back(process)
            else:
                process.end()
        return image

    def _start(self) -> DecoderProcess:
        return DecoderProcess(self._formats, self._command, log_format=self._log_format)

    def _take_idle(self) -> DecoderProcess | None:
        """A warm process; those that somebody ended meanwhile are buried."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                process = self._idle.pop()
            if process.is_alive:
                return process
            process.end()

    def _put_back(self, process: DecoderProcess, *, is_last_choice: bool = False) -> None:
        with self._lock:
            is_kept = not self._is_closed and process.files < _FILES_PER_PROCESS
            if is_kept:
                self._idle.insert(0 if is_last_choice else len(self._idle), process)
        if not is_kept:
            process.end()
        elif process.files == _SUCCESSOR_AT:
            with suppress(OSError):  # then it is started when it is needed
                self._put_back(self._start(), is_last_choice=True)
