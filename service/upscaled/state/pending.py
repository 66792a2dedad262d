"""Releases of credits that failed and are tried again until the database works."""

import logging
import threading
from typing import Final

from upscaled.logs import event
from upscaled.state.ledger import Hold

MAX_PENDING: Final = 10_000
"""A hold takes a database that works, so their number is bounded by the requests under way when it
stopped working. This bounds it also for a database that fails at every second step."""

_log: Final = logging.getLogger(__name__)


class PendingReleases:
    """Holds to give back, in the order in which that failed; for any thread.

    Those lost with the process are given back by the sweep.
    """

    def __init__(self, limit: int = MAX_PENDING) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._holds: dict[str, Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def add(self, hold: Hold) -> None:
        """Add a hold; a full list leaves its oldest hold to the sweep."""
        with self._lock:
            self._holds[hold.request_id] = hold
            if len(self._holds) <= self._limit:
                return
            dropped = next(iter(self._holds.values()))
            del self._holds[dropped.request_id]
        fields = event("pending_release_dropped", hold_id=dropped.request_id)
        _log.error("too many releases are pending; one is left to the sweep", extra=fields)

    def first(self) -> Hold | None:
        """Return the hold that is to be given back next."""
        with self._lock:
            return next(iter(self._holds.values()), None)

    def remove(self, hold: Hold) -> None:
        with self._lock:
            self._holds.pop(hold.request_id, None)

    def postpone(self, hold: Hold) -> None:
        """Move a hold to the end: one that can never be given back delays no other."""
        with self._lock:
            if self._holds.pop(hold.request_id, None):
                self._holds[hold.request_id] = hold
