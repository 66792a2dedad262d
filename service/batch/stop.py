"""Ending a batch from outside: take nothing new, and let go of what is under way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.upscale.lane import Lane


class Stop:
    """Every method may be called from any thread, and from a signal's handler."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._lock = threading.RLock()
        self._lanes: set[Lane] = set()
        self._is_now = False

    def ask(self) -> None:
        """Take nothing new; what is under way is finished."""
        self.asked.set()

    def now(self) -> None:
        """Take nothing new; drop what is under way at its next tile."""
        self.asked.set()
        with self._lock:
            self._is_now = True
            for lane in self._lanes:
                lane.cancel()

    @contextmanager
    def reaching(self, lane: Lane) -> Iterator[None]:
        """For the block `now` cancels the lane, also where it was called before."""
        with self._lock:
            self._lanes.add(lane)
            if self._is_now:
                lane.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._lanes.discard(lane)
