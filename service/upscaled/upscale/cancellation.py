"""Cancel one image's work from another thread, before it begins or while it is in flight."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Cancelled(Exception):
    """The work on an image was cancelled; no result is needed any more."""


class Cancellable(Protocol):
    """Work that ends when `cancel` is called, from any thread."""

    def cancel(self) -> None: ...


class Cancellation:
    """Cancels the work that it was passed to; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may call `cancel`
        self._in_flight: list[Cancellable] = []
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    def cancel(self) -> None:
        """Withdraw every window that is not on the device yet; the work then raises `Cancelled`."""
        with self._lock:
            self._is_cancelled = True
            for work in self._in_flight:
                work.cancel()

    def check(self) -> None:
        """Raise `Cancelled` if `cancel` was called."""
        if self._is_cancelled:
            raise Cancelled

    @contextmanager
    def reaching(self, *works: Cancellable) -> Iterator[None]:
        """Have `cancel` reach these works during the block, also where it was called before."""
        with self._lock:
            self._in_flight += works
            if self._is_cancelled:
                self.cancel()
        try:
            yield
        finally:
            with self._lock:
                for work in works:
                    self._in_flight.remove(work)
