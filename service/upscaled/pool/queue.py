"""Request queue in front of the workers; it chooses which image gets which slot next."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain

from upscaled.image.output import MAX_CANVAS_PX
from upscaled.pool.cost import CostEstimate, CostModel
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.fair_queue import FairQueue
from upscaled.pool.slots import Slot, WorkerSlots
from upscaled.pool.worker_process import WorkerProcess


class QueueFull(Exception):
    """A request is refused because the queue is full.

    gave_way: it was waiting, and was evicted for another key's request, since its own key had more
    than its share.
    """

    def __init__(self, *, gave_way: bool = False) -> None:
        super().__init__("gave way to another key" if gave_way else "the queue is full")
        self.gave_way = gave_way


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    request: UpscaleRequest
    estimate: CostEstimate
    is_retry: bool
    avoided: str = ""
    slot: asyncio.Future[Slot] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def is_failed(self) -> bool:
        """Return whether a device failed the image, and no worker died under it."""
        return bool(self.avoided) and not self.is_retry


class RequestQueue:
    """Request queue, fair between API keys and in order within one, with two exceptions.

    A small image overtakes a large one that fits at no worker. An image that is tried again goes
    before all others; where its worker died, to a worker that has nothing else in flight. A request
    keeps its slot until it releases it.
    """

    def __init__(self, max_waiting: int, cost: CostModel) -> None:
        """Make an empty queue, which no worker serves yet.

        Args:
            max_waiting: how many new requests may wait. As many images that a device failed, at
                least one, and all images whose workers died may wait beside them.
            cost: estimates the worker seconds of a request when it comes.
        """
        self._max_waiting = max_waiting
        self._cost = cost
        self._workers: dict[WorkerProcess, WorkerSlots] = {}
        self._retries: deque[_Waiting] = deque()
        self._fair_queue: FairQueue[_Waiting] = FairQueue()
        self._end: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Return whether a large image of a key that has nothing here would be refused now."""
        if len(self._fair_queue) < self._max_waiting:
            return False
        if self._has_slot_for(MAX_CANVAS_PX // 2, is_small=False):
            return False
        return not self._fair_queue.admits_new_key()

    @property
    def waiting(self) -> int:
        return len(self._retries) + len(self._fair_queue)

    def waiting_by_key(self) -> Counter[int]:
        return Counter(waiting.request.key_id for waiting in self._in_order())

    def in_flight(self) -> list[Slot]:
        return [slot for slots in self._workers.values() for slot in slots.in_use]

    def work_before_s(self, request: UpscaleRequest) -> float:
        """Return the worker seconds of all work that would be done before a refused request.

        Work in flight is finished first, of whichever key. All that its own key has waiting is
        before it. Each other key gets as much as this one, or what it has if that is less: a key
        that floods the queue does not lengthen it.
        """
        in_flight_s = sum(
            self._cost.estimate(slot.request).work_s * (1 - slot.done_part)
            for slot in self.in_flight()
        )
        waiting_s = defaultdict(float, self._fair_queue.waiting_work())
        for waiting in self._retries:
            waiting_s[waiting.request.key_id] += waiting.estimate.work_s
        mine_s = waiting_s.pop(request.key_id, 0.0)
        share_s = mine_s + self._cost.estimate(request).work_s
        return in_flight_s + mine_s + sum(min(left_s, share_s) for left_s in waiting_s.values())

    def add_worker(self, worker: WorkerProcess, slots: int, canvas_px: int = MAX_CANVAS_PX) -> None:
        """Hand out a worker's slots, all free; `canvas_px` bounds its large images' results."""
        self._workers[worker] = WorkerSlots(slots, canvas_px)
        self._assign()

    def remove_worker(self, worker: WorkerProcess) -> None:
        """Hand out no further slot at a worker; what waited for it alone goes to the others."""
        self._workers.pop(worker, None)
        self._assign()

    def release(self, slot: Slot) -> None:
        """Give back a slot that `acquire` returned."""
        if slots := self._workers.get(slot.worker):
            slots.in_use.discard(slot)
            self._assign()

    async def acquire(
        self, request: UpscaleRequest, *, is_retry: bool = False, avoided: str = ""
    ) -> Slot:
        """Wait for a slot at a worker that is alive; to be given back by `release`.

        Args:
            request: the image that is to be upscaled.
            is_retry: a worker died under this image, so it goes before those that never had one,
                and to a worker that has no other image meanwhile.
            avoided: the device on which that worker died, or which failed the image; another one is
                preferred where there is one, so that a broken device is not blamed on the image.
                An image that avoids one goes before those that never had a worker; `QueueFull`
                bounds those that failed, too.

        Raises:
            QueueFull: at once, or when the request gives way to another key's.
            The reason that `close` or `dismiss` was called with.
        """
        is_first = False
        while True:
            waiting = _Waiting(request, self._cost.estimate(request), is_retry, avoided)
            slot = await self._wait(waiting, is_first=is_first)
            if slot.worker.is_alive:
                return slot
            self.release(slot)
            is_first = True

    def dismiss(self, reason: Exception) -> None:
        """End the waiting of every request with `reason`."""
        for waiting in tuple(self._in_order()):
            self._remove(waiting)
            if not waiting.slot.done():
                waiting.slot.set_exception(reason)

    def close(self, reason: Exception) -> None:
        """Dismiss every request that waits, and each that still comes."""
        self._end = reason
        self.dismiss(reason)

    async def _wait(self, waiting: _Waiting, *, is_first: bool) -> Slot:
        if self._end is not None:
            raise self._end.with_traceback(None)
        if is_first:
            self._retries.appendleft(waiting)
        elif waiting.is_retry or waiting.avoided:
            self._retries.append(waiting)
        else:
            self._fair_queue.push(waiting.request.key_id, waiting.estimate.work_s, waiting)
        self._assign()
        if waiting in self._fair_queue and len(self._fair_queue) > self._max_waiting:
            self._refuse_excess(waiting)
        if not is_first and waiting.is_failed:
            self._refuse_excess_failed(waiting)
        try:
            return await waiting.slot
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise

    def _refuse_excess(self, newest: _Waiting) -> None:
        """Evict one request because the queue is over its limit; raise where it is `newest`."""
        excess = self._fair_queue.choose_evicted(newest)
        self._fair_queue.discard(excess)
        if excess is newest:
            raise QueueFull
        if not excess.slot.done():
            excess.slot.set_exception(QueueFull(gave_way=True))

    def _refuse_excess_failed(self, newest: _Waiting) -> None:
        """Refuse an image that a device failed where as many of them wait as may.

        The device that failed it is free again at once, so the limit of the others bounds nothing.
        One may always wait: what becomes of it shows whether the device is at fault.
        """
        waiting = sum(each.is_failed for each in self._retries)
        if newest in self._retries and waiting > max(1, self._max_waiting):
            self._retries.remove(newest)
            raise QueueFull

    def _give_up(self, waiting: _Waiting) -> None:
        if not waiting.slot.cancelled() and not waiting.slot.exception():
            self.release(waiting.slot.result())  # assigned just before the cancellation
            return
        self._remove(waiting)
        self._assign()

    def _remove(self, waiting: _Waiting) -> None:
        self._fair_queue.discard(waiting)
        if waiting in self._retries:
            self._retries.remove(waiting)

    def _in_order(self) -> Iterator[_Waiting]:
        """Return the requests that wait, in the order of service."""
        return chain(tuple(self._retries), self._fair_queue.in_order())

    def _assign(self) -> None:
        """Assign slots to all requests that fit at a worker.

        A large image never gets a worker that a large one before it waits for: that one might
        otherwise wait for ever.
        """
        awaited: set[WorkerProcess] = set()
        for waiting in self._in_order():
            if not self._has_slot_for(0, is_small=True):
                return
            if waiting.slot.done():
                self._remove(waiting)
                continue
            is_small = waiting.estimate.is_small
            if not is_small and len(awaited) == len(self._workers):
                continue
            worker = self._find_worker(waiting, () if is_small else awaited)
            if worker is None:
                awaited.update(() if is_small else self._usable_for(waiting))
                continue
            if waiting in self._fair_queue:
                self._fair_queue.serve(waiting)
            else:
                self._retries.remove(waiting)
            slot = Slot(worker, waiting.request, waiting.is_retry, is_small)
            self._workers[worker].in_use.add(slot)
            waiting.slot.set_result(slot)

    def _find_worker(
        self, waiting: _Waiting, awaited: Collection[WorkerProcess]
    ) -> WorkerProcess | None:
        """Return the worker with least in flight where the image fits, none of the `awaited`."""
        reserved = None if waiting.is_retry else self._reserved_for_retry()
        fitting = [
            worker
            for worker in self._usable_for(waiting)
            if worker is not reserved
            and worker not in awaited
            and self._workers[worker].fits(
                waiting.request.result_px,
                is_small=waiting.estimate.is_small,
                is_exclusive=waiting.is_retry,
            )
        ]
        return min(fitting, key=self._count_in_flight, default=None)

    def _reserved_for_retry(self) -> WorkerProcess | None:
        """Return the worker that gets no other request until it is empty for a retry."""
        retries = (each for each in self._retries if each.is_retry and not each.slot.done())
        if (first := next(retries, None)) is None:
            return None
        return min(self._usable_for(first), key=self._count_in_flight, default=None)

    def _usable_for(self, waiting: _Waiting) -> list[WorkerProcess]:
        """Return the workers that are alive, without those of the device that is avoided."""
        alive = [worker for worker in self._workers if worker.is_alive]
        return [each for each in alive if each.device != waiting.avoided] or alive

    def _has_slot_for(self, result_px: int, *, is_small: bool) -> bool:
        return any(
            slots.fits(result_px, is_small=is_small, is_exclusive=False)
            for slots in self._workers.values()
        )

    def _count_in_flight(self, worker: WorkerProcess) -> int:
        return len(self._workers[worker].in_use)
