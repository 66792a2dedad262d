"""Keep the credits that could not be given back, until the database works again."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from upscaled.logs import event

MAX_OWED: Final = 10_000
"""A hold takes a database that works, so what is owed is bounded by the requests under way when it
stopped working. This bounds it also for a database that fails at every second step."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hold:
    """A credit on hold for one request; `request_id` is made by the server."""

    key_id: int
    request_id: str


OnGivenBack = Callable[[Hold], object]


class OwedCredits:
    """Holds to be given back, in the order in which that failed; for any thread.

    Holds lost with the process are given back by the sweep of the next one.
    """

    def __init__(self, limit: int = MAX_OWED) -> None:
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
        fields = event("owed_credit_dropped", hold_id=dropped.request_id)
        _log.error("too many credits are owed; one is left to the sweep of old holds", extra=fields)

    def settle(
        self, give_back: Callable[[Hold], bool], on_given_back: OnGivenBack | None = None
    ) -> int:
        """Give back what is owed until that fails, and return how many credits that were.

        An exception of `give_back` is passed on. The hold that failed goes to the end of the list,
        so that one that can never be given back delays no other.

        Args:
            give_back: `Credits.give_back`.
            on_given_back: called after each credit, also where a later one fails.
        """
        given_back = 0
        while True:
            with self._lock:
                hold = next(iter(self._holds.values()), None)
            if hold is None:
                return given_back
            try:
                is_given_back = give_back(hold)
            except BaseException:
                with self._lock:
                    if self._holds.pop(hold.request_id, None):
                        self._holds[hold.request_id] = hold
                raise
            with self._lock:
                self._holds.pop(hold.request_id, None)
            if is_given_back:
                given_back += 1
                if on_given_back is not None:
                    on_given_back(hold)
