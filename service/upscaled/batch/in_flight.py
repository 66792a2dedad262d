"""What a batch has in flight: how many pixels at once, and how it is stopped."""

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


class PixelSemaphore:
    """Results share `most_px`; one alone may be of any size."""

    def __init__(self, most_px: int) -> None:
        self._most_px = most_px
        self._held_px = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, result_px: int) -> Iterator[None]:
        """Wait until there is room for a result, and keep it for the block."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._held_px or self._held_px + result_px <= self._most_px
            )
            self._held_px += result_px
        try:
            yield
        finally:
            with self._changed:
                self._held_px -= result_px
                self._changed.notify_all()
