"""Cancelling one picture's work from another thread, before it begins or while it is under way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from upscaled.upscale.stream import Cancelled, Stream


class Cancellation:
    """Cancels the work that it was handed to; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may cancel
        self._lanes: list[Stream] = []
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def cancel(self) -> None:
        """Withdraw every window that is not on the device yet; the work then raises `Cancelled`."""
        with self._lock:
            self._is_cancelled = True
            for stream in self._lanes:
                stream.cancel()

    def check(self) -> None:
        """
        Raises:
            Cancelled: `cancel` was called.
        """
        if self._is_cancelled:
            raise Cancelled

    @contextmanager
    def reaching(self, *streams: Stream) -> Iterator[None]:
        """For the block `cancel` reaches these streams, also where it was called before."""
        with self._lock:
            self._lanes += streams
            if self._is_cancelled:
                self.cancel()
        try:
            yield
        finally:
            with self._lock:
                for stream in streams:
                    self._lanes.remove(stream)
