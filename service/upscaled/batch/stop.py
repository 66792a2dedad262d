"""Ending a batch from outside: take nothing new, and let go of what is under way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from upscaled.upscale.cancellation import Cancellation


class Stop:
    """Every method may be called from any thread, and from a signal's handler."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._lock = threading.RLock()
        self._under_way: set[Cancellation] = set()
        self._is_now = False

    def ask(self) -> None:
        """Take nothing new; what is under way is finished."""
        self.asked.set()

    def now(self) -> None:
        """Take nothing new; drop what is under way at its next tile."""
        self.asked.set()
        with self._lock:
            self._is_now = True
            for cancellation in self._under_way:
                cancellation.cancel()

    @contextmanager
    def reaching(self) -> Iterator[Cancellation]:
        """For the block `now` cancels what it gives, also where it was called before."""
        cancellation = Cancellation()
        with self._lock:
            self._under_way.add(cancellation)
            if self._is_now:
                cancellation.cancel()
        try:
            yield cancellation
        finally:
            with self._lock:
                self._under_way.discard(cancellation)
