"""Credits that could not be given back when they should have been: kept until they are."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.logs import event

MAX_OWED: Final = 10_000
"""A hold takes a database that works, so what is owed is bounded by the requests under way when it
stopped working. This bounds it also for a database that fails at every second step."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hold:
    """A credit taken for one request and not settled yet. `request_id` is the server's own."""

    key_id: int
    request_id: str


class OwedCredits:
    """Holds that are to be given back, in the order in which they failed; from any thread.

    Those lost with the process are given back by the sweep of the next one.
    """

    def __init__(self, limit: int = MAX_OWED) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._holds: dict[str, Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def add(self, hold: Hold) -> None:
        """Remember a hold; a full list drops its oldest one, which is then late, not lost."""
        with self._lock:
            self._holds[hold.request_id] = hold
            if len(self._holds) <= self._limit:
                return
            dropped = next(iter(self._holds.values()))
            del self._holds[dropped.request_id]
        told = event("owed_credit_dropped", hold_id=dropped.request_id)
        _log.error("too many credits are owed; one is left to the sweep of old holds", extra=told)

    def settle(self, give_back: Callable[[Hold], bool]) -> int:
        """Give back what is owed until one fails; returns how many credits that were.

        Whatever `give_back` raises is passed on; the hold it failed at, and those after it, stay.
        """
        given_back = 0
        while True:
            with self._lock:
                hold = next(iter(self._holds.values()), None)
            if hold is None:
                return given_back
            given_back += give_back(hold)
            with self._lock:
                self._holds.pop(hold.request_id, None)
