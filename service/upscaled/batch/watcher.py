"""Watch a folder, and yield each file once it is complete.

The folder is looked through again and again: that finds files on any file system, network ones
included, where notices of the kernel are lost or never come. A file is complete when it has not
changed between two looks and no process has it open for writing, as far as the kernel knows.
"""

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from upscaled.batch.discovery import Finder, Source

EVERY_S: Final = 1.0
_LOOKING_SHARE: Final = 0.02
"""Of the time, at most, is spent looking: a folder of a million files is looked at more rarely."""
_OLD_S: Final = 60.0
"""What last changed so long ago is not looked at twice; clocks of two machines may differ less."""
_GIVEN: Final = float("inf")


class FolderWatcher:
    """Watcher of one folder.

    It keeps about 100 bytes for each file that lies there, and nothing of those that went.
    settle_s: for so long a file must stay as it is. every_s: the least time between two looks.
    """

    def __init__(
        self, finder: Finder, top: Path, *, settle_s: float, every_s: float = EVERY_S
    ) -> None:
        self._finder = finder
        self._top = top
        self._settle_s = settle_s
        self._every_s = every_s
        self._known: dict[int, float] = {}

    def wait_for(self, over: threading.Event) -> Iterator[Source]:
        """Yield every file that is there or comes, changes or is moved in, until `over` is set."""
        while not over.is_set():
            looking_s = 0.0
            began = time.monotonic()
            for source in self._look():
                looking_s += time.monotonic() - began
                if source is not None:
                    yield source
                if over.is_set():
                    return
                began = time.monotonic()
            looking_s += time.monotonic() - began
            over.wait(max(self._every_s, looking_s / _LOOKING_SHARE))

    def _look(self) -> Iterator[Source | None]:
        """Look at every file once, and yield None for those that are not to be taken now."""
        known: dict[int, float] = {}
        for source in self._finder.walk(self._top):
            state = _state_of(source)
            if state is None:
                continue
            seen_at = self._known.get(state, time.monotonic())
            is_taken = seen_at != _GIVEN and self._is_complete(source, seen_at)
            known[state] = _GIVEN if is_taken else seen_at
            yield source if is_taken else None
        self._known = known

    def _is_complete(self, source: Source, seen_at: float) -> bool:
        if source.error is not None:
            return True
        is_still = time.monotonic() - seen_at >= self._settle_s or _is_old(source.path)
        return is_still and not is_being_written(source.path)


def is_being_written(path: Path) -> bool:
    """Return whether some process has the file open for writing; False where that is unknown.

    Linux grants a lease for reading only while no process writes. It is given up at once; a writer
    that comes in between waits for that, and this process is sent SIGIO, which must be ignored.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # reading the file then says why
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # others: not our file, or a file system without leases
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def _is_old(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return time.time() - max(status.st_mtime, status.st_ctime) > _OLD_S


def _state_of(source: Source) -> int | None:
    """Return a number for a file as it is now, another once it changed; None if it is gone."""
    if source.error is not None:
        return hash((source.path, source.error.errno))
    try:
        status = source.path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return hash((str(source.path), status.st_dev, status.st_ino, status.st_size, *times))
