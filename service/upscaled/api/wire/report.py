"""Telling of exchanges that are over, a moment later and many at once.

Counting and logging run code that nothing else runs. Done at the end of each request, with caches
that are full of pixels, they took 200 us of it on a busy machine. Done for many at once, by a
thread of its own, they take less, and no answer waits for them, nor for a terminal or a pipe that
is slow to take its lines.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from upscaled.api.facts import Exchange
from upscaled.logs import event

Observer = Callable[[Exchange], None]
"""Called for each exchange in the order in which they ended, by any thread, one at a time."""

EVERY_S: Final = 0.5

_logger: Final = logging.getLogger(__name__)


class Report:
    """What is to be told, and the number of requests `under_way`.

    Its thread begins with the first exchange and ends with `close`.
    """

    def __init__(self, observers: Sequence[Observer], every_s: float = EVERY_S) -> None:
        self.under_way = 0
        self._observers = tuple(observers)
        self._every_s = every_s
        self._over: deque[Exchange] = deque()
        self._telling = threading.Lock()
        self._is_wanted = threading.Event()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, exchange: Exchange) -> None:
        """Have an exchange told of, within `every_s` and a little. Only by the event loop."""
        self._over.append(exchange)
        if self._is_closed.is_set():
            self.tell()
        elif not self._is_wanted.is_set():
            self._is_wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._tell_until_closed, name="report", daemon=True
                )
                self._thread.start()

    def tell(self) -> None:
        """Tell of everything so far, now; from any thread."""
        with self._telling:
            while self._over:
                exchange = self._over.popleft()
                for observe in self._observers:
                    self._tell_one(observe, exchange)

    async def close(self) -> None:
        """Tell of the rest; whatever still comes is told of at once."""
        self._is_closed.set()
        self._is_wanted.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self.tell)

    def _tell_until_closed(self) -> None:
        while not self._is_closed.is_set():
            self._is_wanted.wait()
            self._is_closed.wait(self._every_s)
            self._is_wanted.clear()
            self.tell()

    def _tell_one(self, observe: Observer, exchange: Exchange) -> None:
        try:
            observe(exchange)
        except Exception:  # the others hear of it still, and of all that follow
            told = event("crash", request_id=exchange.facts.request_id)
            _logger.exception("an exchange could not be told of", extra=told)
