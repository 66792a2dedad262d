"""Standard input as a picture's source, and standard output as the place of its result."""

import os
import select
import signal
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from upscaled.batch import files
from upscaled.batch.journal import Record
from upscaled.batch.output_store import Output, ReservedPath
from upscaled.upscale.concurrency import Cancelled

STREAM: Final = "-"
"""The name of standard input and of standard output on a command line."""
_STDOUT_FD: Final = 1
_LOOK_EVERY_S: Final = 0.25
_READ_BYTES: Final = 1 << 20


class ReaderGone(files.BatchAborted):
    """The program that reads standard output has closed it, as `head` does."""

    exit_status = 128 + signal.SIGPIPE


@dataclass(frozen=True, slots=True)
class InputPicture:
    """Picture on standard input as a `SourceFile`; `is_over` ends the wait for a writer."""

    fd: int
    is_over: threading.Event

    def __str__(self) -> str:
        return STREAM

    @property
    def name(self) -> str:
        """Return a name for a result that is made of it."""
        return "stdin"

    def read(self, formats: Collection[str], *, is_any: bool) -> bytes:
        """Read it to its end, or a byte more than `MAX_SOURCE_BYTES`.

        Raises:
            Cancelled: the batch was stopped while the writer still had it open.
            NotAnImage, UnsupportedImageFormat, FileSizeTooLarge: as of `files.read_source`.
        """
        data = bytearray()
        for part in self._parts():
            data += part
            if len(data) > files.MAX_SOURCE_BYTES:
                break
        ends = bytes(data[: files.HEAD_BYTES] + data[-files.TAIL_BYTES :])
        files.check_ends(ends, len(data), formats, is_any=is_any)
        return bytes(data)

    def state(self) -> int | None:
        """Return a number for it: a stream is read once."""
        return self.fd

    def is_whole(self, *, is_still: bool) -> bool:
        """Return True: it is read to its end."""
        return True

    def _parts(self) -> Iterator[bytes]:
        while not self.is_over.is_set():
            if select.select([self.fd], [], [], _LOOK_EVERY_S)[0]:
                part = os.read(self.fd, _READ_BYTES)
                if not part:
                    return
                yield part
        raise Cancelled


class OutputStream(Output):
    def __init__(self, fd: int = _STDOUT_FD) -> None:
        self._fd = fd

    def take_over(self) -> None:
        """Reserve the stream for the result, and discard what libraries print to its descriptor."""
        stdout = self._fd
        self._fd = os.dup(stdout)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stdout)
        os.close(null)

    def locate(self, path: PurePath) -> str:
        return STREAM

    def write(self, reservation: ReservedPath, record: Record, data: bytes) -> Record:
        """Write a result; `ReaderGone` where nothing reads the pipe any more."""
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[os.write(self._fd, left) :]
                except BlockingIOError:  # another program that has the pipe made it so
                    select.select([], [self._fd], [])
        except BrokenPipeError as error:
            raise ReaderGone(f"standard output: {error.strerror}") from error
        except OSError as error:
            kind = files.OutputFull if error.errno in files.NO_MORE_WRITES else files.CannotWrite
            raise kind(f"standard output: {error.strerror}") from error
        return record
