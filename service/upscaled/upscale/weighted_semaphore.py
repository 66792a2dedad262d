"""Semaphore whose holders weigh differently: it bounds memory that many threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WeightedSemaphore:
    """Semaphore of a weight that all holders share; one alone may be of any weight.

    encoders = WeightedSemaphore(1_500_000_000)
    with encoders.hold(size_bytes):
        ...
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: the weight of all holders together, in whatever unit `hold` is called with.
        """
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
