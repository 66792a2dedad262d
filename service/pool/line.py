"""The waiting line: workers without work, or work without a worker, never both."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from service.pool.boundary import UpscaleRequest
from service.pool.process import WorkerProcess


class LineFull(Exception):
    """As many images wait as may wait."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    request: UpscaleRequest
    turn: asyncio.Future[WorkerProcess]


class Line:
    """First come, first served, over a bounded number of places."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._idle: deque[WorkerProcess] = deque()
        self._waiting: deque[_Waiting] = deque()

    @property
    def is_full(self) -> bool:
        return not self._idle and len(self._waiting) >= self._max_waiting

    def requests(self) -> Iterator[UpscaleRequest]:
        """What waits, in its order."""
        return (waiting.request for waiting in self._waiting)

    def offer(self, worker: WorkerProcess) -> None:
        """Give a free worker to whoever waits longest, or keep it for the next to come."""
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def withdraw(self, worker: WorkerProcess) -> None:
        """Forget a worker that may have died while idle."""
        if worker in self._idle:
            self._idle.remove(worker)

    async def take(self, request: UpscaleRequest, *, is_again: bool = False) -> WorkerProcess:
        """A free worker, alive at this moment.

        `is_again`: its worker died under this image, so it goes first and needs no place.

        Raises:
            LineFull: at once.
        """
        while True:
            worker = await self._next(request, is_again)
            if worker.is_alive:
                return worker
            is_again = True

    async def _next(self, request: UpscaleRequest, is_again: bool) -> WorkerProcess:
        if self._idle:
            return self._idle.popleft()
        if self.is_full and not is_again:
            raise LineFull
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        if is_again:
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            self._leave(waiting)
            raise

    def _leave(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        elif not waiting.turn.cancelled() and not waiting.turn.exception():
            self.offer(waiting.turn.result())  # the turn came in the moment it was given up

    def dismiss(self, reason: Exception) -> None:
        """End the waiting of everyone in the line with `reason`."""
        while self._waiting:
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_exception(reason)
