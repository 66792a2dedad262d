"""Telling of exchanges that are over, a moment later and many at once.

Counting and logging run code that nothing else runs. Done at the end of each request, with caches
that are full of pixels, they took 200 us of it; done for a batch, beside the event loop, a quarter,
and no answer waits for them, nor for a terminal or a pipe that is slow to take its lines.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from service.api.facts import Exchange

Observer = Callable[[Exchange], None]
"""Called for each exchange in the order in which they ended, by any thread, one at a time. It must
not raise."""

EVERY_S: Final = 0.25


class Report:
    """What is to be told, and the number of requests `under_way`; belongs to one event loop."""

    def __init__(self, observers: Sequence[Observer], every_s: float = EVERY_S) -> None:
        self.under_way = 0
        self._observers = tuple(observers)
        self._every_s = every_s
        self._over: deque[Exchange] = deque()
        self._telling = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, exchange: Exchange) -> None:
        """Have an exchange told of, within `every_s` and a little."""
        self._over.append(exchange)
        if self._is_closed:
            self.tell()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._every_s, self._tell_beside, loop)

    def tell(self) -> None:
        """Tell of everything so far, now; from any thread."""
        with self._telling:
            while self._over:
                exchange = self._over.popleft()
                for observe in self._observers:
                    observe(exchange)

    async def close(self) -> None:
        """Tell of the rest; whatever still comes is told of at once."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self.tell)

    def _tell_beside(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        loop.run_in_executor(None, self.tell)
