"""The memory that images take while the front end has them, all requests together.

The queue is bounded, but a client may send its image long before the queue is asked: without this
a few hundred uploads at once would be held in memory, to be refused one after the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.config import Settings
from service.errors import RateLimitExceeded

# Beyond what may be queued or worked on: images that are just arriving.
ARRIVING: Final = 8
# Nobody can know which sender will be slow; the queue's own wait is not asked yet.
RETRY_AFTER_S: Final = 5


class Budget:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """One request's share, given back at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held_bytes -= share.size_bytes


class Share:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count bytes that have just arrived.

        Raises:
            RateLimitExceeded: all requests together hold more than the budget.
        """
        if self._budget.held_bytes + size_bytes > self._budget.limit_bytes:
            raise RateLimitExceeded(RETRY_AFTER_S, detail="too many images at once")
        self._budget.held_bytes += size_bytes
        self.size_bytes += size_bytes


def build_budget(settings: Settings) -> Budget:
    """Room for every image that may be queued or worked on, and for some that are arriving."""
    images = settings.max_queue + settings.workers + ARRIVING
    return Budget(images * settings.max_file_bytes)
