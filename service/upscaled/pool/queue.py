"""The request queue in front of the workers: which request gets the next slot, and where."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from upscaled.pool.cost import Estimate
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.fair_queue import FairQueue
from upscaled.pool.room import LARGE_RESULTS_PX, Place, Room
from upscaled.pool.worker_process import WorkerProcess


class LineFull(Exception):
    """As many requests wait as may wait.

    gave_way: the request had waited, and another key's took its place because its own key had more
    than its share.
    """

    def __init__(self, *, gave_way: bool = False) -> None:
        super().__init__("gave way to another key" if gave_way else "the queue is full")
        self.gave_way = gave_way


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    request: UpscaleRequest
    estimate: Estimate
    is_alone: bool
    turn: asyncio.Future[Place] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Line:
    """Fair between API keys and in order within one (see `FairQueue`), with two exceptions.

    A small image passes a large one that finds no room, and an image whose worker died goes before
    all others. A request that has a slot keeps it, whatever comes.

    Args:
        max_waiting: how many requests may wait; those that come again are not counted.
        estimate: what a request will take of a worker; asked once for each, when it comes.
    """

    def __init__(self, max_waiting: int, estimate: Callable[[UpscaleRequest], Estimate]) -> None:
        self._max_waiting = max_waiting
        self._estimate = estimate
        self._rooms: dict[WorkerProcess, Room] = {}
        self._again: deque[_Waiting] = deque()
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._end: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether a large image of a key that has nothing here would be refused now."""
        if len(self._queue) < self._max_waiting:
            return False
        large_px = LARGE_RESULTS_PX // 2
        rooms = self._rooms.values()
        if any(room.fits(large_px, is_small=False, is_alone=False) for room in rooms):
            return False
        return not self._queue.would_take_new_key()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._again) + len(self._queue)

    @property
    def keys_waiting(self) -> int:
        """How many API keys have requests that wait."""
        return len({request.key_id for request in self.requests()})

    @property
    def most_of_one_key(self) -> int:
        """The largest number of waiting requests that one API key has."""
        return max(Counter(request.key_id for request in self.requests()).values(), default=0)

    def requests(self) -> Iterator[UpscaleRequest]:
        """The requests that wait, in the order of service."""
        return (waiting.request for waiting in chain(self._again, self._queue.in_order()))

    def waiting_s(self) -> dict[int, float]:
        """Seconds of a worker that the waiting requests of each key will take."""
        waiting_s = defaultdict(float, self._queue.waiting_work())
        for waiting in self._again:
            waiting_s[waiting.request.key_id] += waiting.estimate.work_s
        return waiting_s

    def join(self, worker: WorkerProcess, places: int) -> None:
        """Give out the slots of a worker; all `places` of it are free."""
        self._rooms[worker] = Room(places)
        self._assign()

    def withdraw(self, worker: WorkerProcess) -> None:
        """Give out no slot at a worker any more."""
        self._rooms.pop(worker, None)

    def release(self, place: Place) -> None:
        """Give back a slot that `take` returned."""
        if room := self._rooms.get(place.worker):
            room.free(place)
            self._assign()

    async def take(
        self, request: UpscaleRequest, *, is_again: bool = False, is_alone: bool = False
    ) -> Place:
        """Wait for a slot at a worker that is alive; to be given back by `release`.

        is_again: its worker died under this image, so it goes before those that never had one.
        is_alone: no other image is to be at that worker meanwhile.

        Raises:
            LineFull: at once, or when the request gives way to another key's.
            what `close` or `dismiss` was given.
        """
        is_first = False
        while True:
            waiting = _Waiting(request, self._estimate(request), is_alone)
            place = await self._next(waiting, is_again, is_first)
            if place.worker.is_alive:
                return place
            self.release(place)
            is_again = is_first = True

    async def _next(self, waiting: _Waiting, is_again: bool, is_first: bool) -> Place:
        if self._end is not None:
            raise self._end.with_traceback(None)
        if is_first:
            self._again.appendleft(waiting)
        elif is_again:
            self._again.append(waiting)
        else:
            self._queue.push(waiting.request.key_id, waiting.estimate.work_s, waiting)
        self._assign()
        if waiting in self._queue and len(self._queue) > self._max_waiting:
            self._refuse_excess(waiting)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            self._leave(waiting)
            raise

    def _refuse_excess(self, newest: _Waiting) -> None:
        """Refuse one request, for one more waits than may wait.

        Raises:
            LineFull: it is `newest` itself.
        """
        excess = self._queue.find_excess(newest)
        self._queue.discard(excess)
        if excess is newest:
            raise LineFull
        if not excess.turn.done():
            excess.turn.set_exception(LineFull(gave_way=True))

    def _leave(self, waiting: _Waiting) -> None:
        if not waiting.turn.cancelled() and not waiting.turn.exception():
            self.release(waiting.turn.result())  # it came in the moment it was given up
            return
        self._forget(waiting)
        self._assign()

    def _forget(self, waiting: _Waiting) -> None:
        self._queue.discard(waiting)
        if waiting in self._again:
            self._again.remove(waiting)

    def _assign(self) -> None:
        """Give slots to all for whom there is room.

        A large image never passes another, which might then wait for ever.
        """
        is_large_blocked = False
        for waiting in chain(tuple(self._again), self._queue.in_order()):
            if not any(room.has_place for room in self._rooms.values()):
                return
            if waiting.turn.done():
                self._forget(waiting)
                continue
            if is_large_blocked and not waiting.estimate.is_small:
                continue
            place = self._find_place(waiting)
            if place is not None:
                self._seat(waiting, place)
            elif not waiting.estimate.is_small:
                is_large_blocked = True

    def _seat(self, waiting: _Waiting, place: Place) -> None:
        if waiting in self._queue:
            self._queue.serve(waiting)
        else:
            self._again.remove(waiting)
        self._rooms[place.worker].take(place)
        waiting.turn.set_result(place)

    def _find_place(self, waiting: _Waiting) -> Place | None:
        """A slot at the worker that has least in flight, of those that have room for the image."""
        closed = None if waiting.is_alone else self._kept_for_one_alone()
        fitting = [
            worker
            for worker, room in self._rooms.items()
            if worker.is_alive
            and worker is not closed
            and room.fits(
                waiting.request.result_px,
                is_small=waiting.estimate.is_small,
                is_alone=waiting.is_alone,
            )
        ]
        if not fitting:
            return None
        worker = min(fitting, key=lambda worker: self._rooms[worker].taken)
        return Place(worker, waiting.request, waiting.is_alone, waiting.estimate.is_small)

    def _kept_for_one_alone(self) -> WorkerProcess | None:
        """The worker that takes no other request until it is empty for one that is to be alone."""
        if not any(waiting.is_alone and not waiting.turn.done() for waiting in self._again):
            return None
        alive = [worker for worker in self._rooms if worker.is_alive]
        return min(alive, key=lambda worker: self._rooms[worker].taken, default=None)

    def dismiss(self, reason: Exception) -> None:
        """End the waiting of every request with `reason`."""
        for waiting in (*self._again, *self._queue.in_order()):
            self._forget(waiting)
            if not waiting.turn.done():
                waiting.turn.set_exception(reason)

    def close(self, reason: Exception) -> None:
        """Dismiss every request, and each that still comes."""
        self._end = reason
        self.dismiss(reason)
