"""Who holds a credit: one process, and whether it still lives."""

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.state.lockfile import adopt_orphan, create_locked


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
        """The id to write beside a hold; from the first call on this process counts as alive."""
        with self._lock:
            if self._descriptor is None:
                self._descriptor = create_locked(self._folder / self._id)
        return self._id

    @contextmanager
    def dead_ids(self) -> Iterator[list[str]]:
        """Ids of processes that ended or closed; forgotten when the block ends well."""
        with ExitStack() as adopted:
            yield [
                path.name
                for path in sorted(self._folder.iterdir())
                if adopted.enter_context(adopt_orphan(path))
            ]

    def close(self) -> None:
        """Count as dead from now on: what is still on hold may be given back by anyone."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                self._id = uuid.uuid4().hex
