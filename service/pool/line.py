"""The waiting line: who gets the next place at a worker."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.pool.boundary import UpscaleRequest
from service.pool.process import WorkerProcess
from service.pool.room import LARGE_RESULTS_PX, Place, Room, is_small


class LineFull(Exception):
    """As many images wait as may wait."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    request: UpscaleRequest
    is_alone: bool
    turn: asyncio.Future[Place] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Line:
    """First come, first served, but that a small image may pass a large one that finds no room.

    Args:
        max_waiting: how many may wait; those that come again need no place in the line.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._rooms: dict[WorkerProcess, Room] = {}
        self._again: deque[_Waiting] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._end: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether a large image that comes now would be sent away."""
        if len(self._waiting) < self._max_waiting:
            return False
        return not any(
            room.fits(LARGE_RESULTS_PX // 2, is_alone=False) for room in self._rooms.values()
        )

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._again) + len(self._waiting)

    def requests(self) -> Iterator[UpscaleRequest]:
        """What waits, in its order."""
        return (waiting.request for waiting in (*self._again, *self._waiting))

    def join(self, worker: WorkerProcess, places: int) -> None:
        """All `places` of a worker are free."""
        self._rooms[worker] = Room(places)
        self._seat()

    def withdraw(self, worker: WorkerProcess) -> None:
        """Give out no place at a worker any more."""
        self._rooms.pop(worker, None)

    def release(self, place: Place) -> None:
        """Give a place back, and to whoever is next."""
        if room := self._rooms.get(place.worker):
            room.free(place)
            self._seat()

    async def take(
        self, request: UpscaleRequest, *, is_again: bool = False, is_alone: bool = False
    ) -> Place:
        """A place at a worker that is alive at this moment; to be given back by `release`.

        is_again: its worker died under this image, so it goes before those that never had one.
        is_alone: nobody else is to be at that worker meanwhile.

        Raises:
            LineFull: at once.
            what `close` was told.
        """
        is_first = False
        while True:
            place = await self._next(_Waiting(request, is_alone), is_again, is_first)
            if place.worker.is_alive:
                return place
            self.release(place)
            is_again = is_first = True

    async def _next(self, waiting: _Waiting, is_again: bool, is_first: bool) -> Place:
        if self._end is not None:
            raise self._end.with_traceback(None)
        if is_first:
            self._again.appendleft(waiting)
        else:
            (self._again if is_again else self._waiting).append(waiting)
        self._seat()
        if not is_again and not waiting.turn.done() and len(self._waiting) > self._max_waiting:
            self._forget(waiting)
            raise LineFull
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            self._leave(waiting)
            raise

    def _leave(self, waiting: _Waiting) -> None:
        if not waiting.turn.cancelled() and not waiting.turn.exception():
            self.release(waiting.turn.result())  # it came in the moment it was given up
            return
        self._forget(waiting)
        self._seat()

    def _forget(self, waiting: _Waiting) -> None:
        for line in (self._again, self._waiting):
            if waiting in line:
                line.remove(waiting)

    def _seat(self) -> None:
        """Give places to all for whom there is room.

        A large image never passes another, which might then wait for ever.
        """
        is_large_blocked = False
        for line in (self._again, self._waiting):
            for waiting in tuple(line):
                if not any(room.has_place for room in self._rooms.values()):
                    return
                is_small_one = is_small(waiting.request.result_px)
                if not waiting.turn.done() and (is_small_one or not is_large_blocked):
                    self._find_place(waiting)
                if waiting.turn.done():
                    line.remove(waiting)
                elif not is_small_one:
                    is_large_blocked = True

    def _find_place(self, waiting: _Waiting) -> None:
        """Give it a place at the worker that has least under way, if one has room."""
        closed = None if waiting.is_alone else self._kept_for_one_alone()
        fitting = [
            worker
            for worker, room in self._rooms.items()
            if worker.is_alive
            and worker is not closed
            and room.fits(waiting.request.result_px, is_alone=waiting.is_alone)
        ]
        if fitting:
            worker = min(fitting, key=lambda worker: self._rooms[worker].taken)
            place = Place(worker, waiting.request, waiting.is_alone)
            self._rooms[worker].take(place)
            waiting.turn.set_result(place)

    def _kept_for_one_alone(self) -> WorkerProcess | None:
        """The worker that takes nobody new, until it is empty for one that is to be alone."""
        if not any(waiting.is_alone and not waiting.turn.done() for waiting in self._again):
            return None
        alive = [worker for worker in self._rooms if worker.is_alive]
        return min(alive, key=lambda worker: self._rooms[worker].taken, default=None)

    def dismiss(self, reason: Exception) -> None:
        """End the waiting of everyone in the line with `reason`."""
        for line in (self._again, self._waiting):
            while line:
                turn = line.popleft().turn
                if not turn.done():
                    turn.set_exception(reason)

    def close(self, reason: Exception) -> None:
        """Dismiss everyone, and whoever still comes."""
        self._end = reason
        self.dismiss(reason)
