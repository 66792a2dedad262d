"""Identify the process that holds a credit, and find out whether it still lives."""

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from upscaled.state.errors import FolderUnusable
from upscaled.state.lockfile import adopt_orphan, create_locked


class Holders(NamedTuple):
    """Ids of the processes that have a file; a process without one is in neither list."""

    dead: list[str]
    living: list[str]


class Holder:
    """This process among those that may hold credits, each a locked file in `folder`.

    All front ends of one database share the data folder: stored results already ask for that.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._id = uuid.uuid4().hex
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Return the id to write beside a hold; from the first call on this process is alive.

        A file that was deleted meanwhile is made anew under another id: other processes would take
        its holds for those of a dead one.

        Raises:
            FolderUnusable: the folder takes no file.
        """
        with self._lock:
            if self._descriptor is not None and not self._is_in_place(self._descriptor):
                os.close(self._descriptor)
                self._descriptor = None
                self._id = uuid.uuid4().hex
            if self._descriptor is None:
                self._descriptor = self._create()
            return self._id

    @contextmanager
    def survey(self) -> Iterator[Holders]:
        """List the living and the dead processes; remove the files of the dead after the block."""
        with ExitStack() as adopted:
            dead: list[str] = []
            living: list[str] = []
            for path in sorted(self._folder.iterdir()):
                is_dead = adopted.enter_context(adopt_orphan(path))
                (dead if is_dead else living).append(path.name)
            yield Holders(dead, living)

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

    def close(self) -> None:
        """Count as dead from now on, so that any process may give back what is still on hold."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                self._id = uuid.uuid4().hex
