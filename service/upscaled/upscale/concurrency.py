"""What the threads of images share: cancelling one from another, and a bound on their memory."""

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


class WeightedSemaphore:
    """Semaphore of a weight that all holders share; one alone may be of any weight."""

    def __init__(self, most: int) -> None:
        """Let holders have `most` together, in whatever unit `hold` is called with."""
        self._most = most
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, weight: int) -> Iterator[None]:
        """Wait until a holder fits beside the others, and hold its weight for the block.

        What weighs nothing never waits.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: not weight or not self._held or self._held + weight <= self._most
            )
            self._held += weight
        try:
            yield
        finally:
            with self._changed:
                self._held -= weight
                self._changed.notify_all()
