"""Processes that hold credits and leases: this one's identity, and which of them still run.

A running process has a locked file, which the kernel unlocks however the process ends, so a file
that can be locked is an orphan. Process ids are used again, and two containers on one disk number
theirs alike. The front ends of a PostgreSQL may be on different machines, which do not see each
other's files: for their credits each renews a lease there, too (`lease.py`).
"""

import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from upscaled.state.errors import FolderUnusable


class Holders(NamedTuple):
    """Ids of processes that may hold credits; one that is in neither list left no trace.

    ended: ids, as of `process_id`, of processes that have certainly ended.
    """

    dead: list[str]
    living: list[str]
    ended: list[str]


class Holder(Protocol):
    """This process among those that may hold credits in one database."""

    @property
    def id(self) -> str:
        """Return the id to write beside a hold; from the first call on this process is alive.

        Raises:
            DatabaseFailed, FolderUnusable: the process cannot be shown to be alive.
        """

    @property
    def process_id(self) -> str:
        """Return what the ids of leases begin with that this process takes; it never fails."""

    def forget(self, holder_id: str) -> None:
        """Replace an `id` that was declared dead by a new one, unless that was done before."""

    def survey(self) -> AbstractContextManager[Holders]:
        """List the living and the dead processes, and remove the dead after the block."""

    def find_elsewhere(self) -> list[str]:
        """Return the `process_id` of each living process that does not use this data folder."""

    def lead(self) -> bool:
        """Return whether this process does what one process of the database has to do."""

    def close(self) -> None:
        """Count as dead from now on, so that any process may give back what is still on hold."""


class FileHolder:
    """A holder by a locked file in `folder`, which the processes of one database share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._id = uuid.uuid4().hex
        self._descriptor: int | None = None
        self._former: list[int] = []
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Return the id as `Holder` says.

        A file that was deleted meanwhile is made anew under another id: other processes would take
        its holds for those of a dead one. It stays locked, for it may come back: its folder was
        moved, or given to another user for a while.
        """
        with self._lock:
            if self._descriptor is not None and not self._is_in_place(self._descriptor):
                self._former.append(self._descriptor)
                self._descriptor, self._id = None, uuid.uuid4().hex
            if self._descriptor is None:
                self._descriptor = self._create()
            return self._id

    @property
    def process_id(self) -> str:
        """Return the id; where no file can be made another one, whose leases run out by time."""
        try:
            return self.id
        except FolderUnusable:
            return uuid.uuid4().hex

    def forget(self, holder_id: str) -> None:
        """Replace the id, although a running process cannot lose the lock of its file."""
        with self._lock:
            if holder_id == self._id:
                self._forget()

    @contextmanager
    def survey(self) -> Iterator[Holders]:
        """List the living and the dead processes; remove the files of the dead after the block."""
        with ExitStack() as adopted:
            dead: list[str] = []
            living: list[str] = []
            for path in self._files():
                is_dead = adopted.enter_context(adopt_orphan(path))
                (dead if is_dead else living).append(path.name)
            yield Holders(dead, living, dead)

    def find_elsewhere(self) -> list[str]:
        """Return none: all processes of a SQLite file use its folder."""
        return []

    def has_file(self, process_id: str) -> bool:
        """Return whether a living process has its file in this folder."""
        return (self._folder / process_id).exists()

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.iterdir())
        except FileNotFoundError:
            return []

    def lead(self) -> bool:
        """Return True: on SQLite every process may do everything."""
        return True

    def close(self) -> None:
        """Unlock the file, so that any process may give back what is still on hold."""
        with self._lock:
            while self._former:
                os.close(self._former.pop())
            if self._descriptor is not None:
                self._forget()

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
        self._id = uuid.uuid4().hex

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._folder / self._id), os.fstat(descriptor))
        except OSError:
            return False

    def _create(self) -> int:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return create_locked(self._folder / self._id)
        except OSError as error:
            raise FolderUnusable(f"cannot use {self._folder}: {error.strerror}") from error


def create_locked(path: Path) -> int:
    """Create a new file, lock it and return its open descriptor; closing it drops the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
        os.close(descriptor)  # removed as an orphan between the two calls: make another


@contextmanager
def adopt_orphan(path: Path) -> Iterator[bool]:
    """Lock `path` for the block if its process ended, and remove it unless the block raises.

    Yields whether the file is an orphan; False also if it is gone or another caller adopts it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_orphan = True
    except BlockingIOError:
        is_orphan = False
    try:
        yield is_orphan
        if is_orphan:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
