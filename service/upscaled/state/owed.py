"""Credits that could not be given back when they should have been: kept until they are."""

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
    """A credit taken for one request and not settled yet. `request_id` is the server's own."""

    key_id: int
    request_id: str


OnGivenBack = Callable[[Hold], object]


def _ignore(_: Hold) -> None:
    """The `on_given_back` of a caller that counts nothing."""


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
        fields = event("owed_credit_dropped", hold_id=dropped.request_id)
        _log.error("too many credits are owed; one is left to the sweep of old holds", extra=fields)

    def settle(
        self, give_back: Callable[[Hold], bool], on_given_back: OnGivenBack = _ignore
    ) -> int:
        """Give back what is owed until one fails; returns how many credits that were.

        on_given_back: called after each of them, also where a later one fails.

        Whatever `give_back` raises is passed on; those left stay, the hold it failed at as the last
        one: a hold that can never be given back is in the way of no other.
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
                on_given_back(hold)
