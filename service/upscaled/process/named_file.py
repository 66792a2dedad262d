"""Read a small file that a setting names: bounded in size, and in the wait for a pipe's writer."""

import os
import select
import stat
import time
from io import FileIO
from pathlib import Path
from typing import Final

MAX_NAMED_BYTES: Final = 1024 * 1024
"""Limits a file of a secret or a certificate: far more than any of them has."""

PIPE_WAIT_S: Final = 10.0
"""Limits the wait for all that comes through a pipe, as a shell's `<(command)` is one."""

_READ_BYTES: Final = 65_536


class NamedFileUnusable(Exception):
    """A named file cannot be read as a small file; the text is the reason, without its name."""


def read_named_file(path: Path, *, takes_pipe: bool, wait_s: float = PIPE_WAIT_S) -> bytes:
    """Return all bytes of a small file, at most `MAX_NAMED_BYTES`.

    Args:
        takes_pipe: whether it may be a pipe, which can be read only once.
        wait_s: limits the wait for what comes through a pipe.

    Raises:
        NamedFileUnusable: it cannot be opened, is larger, is a folder, a device or a pipe that is
            not taken, or its writer does not end in time.
    """
    try:
        with open(path, "rb", buffering=0, opener=open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode):
                deadline_s = None
            elif takes_pipe and stat.S_ISFIFO(mode):
                deadline_s = time.monotonic() + wait_s
            else:
                raise NamedFileUnusable("is no regular file")
            return _read_bounded(file, deadline_s)
    except OSError as error:
        raise NamedFileUnusable(error.strerror or "cannot be read") from None


def open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, where the file is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_bounded(file: FileIO, deadline_s: float | None) -> bytes:
    content = b""
    while len(content) <= MAX_NAMED_BYTES:
        if deadline_s is not None:
            _wait_readable(file, deadline_s)
        read = file.read(_READ_BYTES)
        if read is None:  # another process has read it first
            continue
        if not read:
            return content
        content += read
    raise NamedFileUnusable(f"is larger than {MAX_NAMED_BYTES} bytes")


def _wait_readable(pipe: FileIO, deadline_s: float) -> None:
    """Wait until a pipe has data or its writers have closed it.

    A pipe that nothing has opened for writing yet is not readable, and would be read as empty.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    left_s = max(0.0, deadline_s - time.monotonic())
    if not poll.poll(left_s * 1000):
        raise NamedFileUnusable("is a pipe whose writer does not end")
