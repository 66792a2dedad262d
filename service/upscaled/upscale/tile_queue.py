"""Fair queue of tiles across images, weighted by device seconds; equal shapes are batched.

Start-time fair queueing (see `upscaled.virtual_time`) on two levels. API keys share the device, and
the images of a key share what it gets: a key with three images in flight has no more of the device
than one with a single image. Each image has a queue for each network it goes through, charged with
the seconds that its windows should take, and so is its key. Of the key charged least the queue
charged least is next. So a small image goes before the next window of a large one, and no number
of small images can keep a large one waiting for ever. Where a device can do two things at once, a
small image that comes while it is busy need not wait at all: it goes through the fast path.
"""

import threading
from collections.abc import Collection, Sequence
from itertools import count, takewhile
from weakref import WeakValueDictionary

from upscaled.errors import InternalError
from upscaled.upscale.concurrency import Cancelled
from upscaled.upscale.tile_request import ImageQueue, KeyFlow, TileRequest
from upscaled.virtual_time import VirtualClock
from upscaled_models.backends.base import is_deep, most_windows


class TileQueue:
    """The queues of all images in flight; every method may be called from any thread."""

    def __init__(self) -> None:
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._fast_path_changed = threading.Condition(lock)
        self._busy_with: tuple[ImageQueue, ...] = ()
        self._waiting: list[ImageQueue] = []
        self._numbers = count()
        self._clock = VirtualClock()
        self._keys: WeakValueDictionary[int, KeyFlow] = WeakValueDictionary()
        self._max_batch_px: dict[str, int] = {}
        self._end: str | None = None

    def join(self, key_id: int | None = None, *, beside: ImageQueue | None = None) -> ImageQueue:
        """Open a queue for one more image.

        Args:
            key_id: images of one key share the key's part of the device; None: the image has a
                part of its own.
            beside: another queue of the same image, whose key it shares.
        """
        with self._changed:
            if beside is not None:
                key = beside.key
            else:
                key = KeyFlow() if key_id is None else self._keys.setdefault(key_id, KeyFlow())
            return ImageQueue(number=next(self._numbers), key=key)

    def put(self, request: TileRequest) -> None:
        """Queue a window.

        Raises:
            Cancelled: after `leave` for this queue.
            InternalError: after `close`.
        """
        with self._changed:
            queue = request.queue
            if self._end is not None:
                raise InternalError(detail=self._end)
            if queue.is_left:
                raise Cancelled
            if not queue.requests:
                self._begin(queue)
            queue.requests.append(request)
            queue.total_px += request.px
            queue.total_s += request.cost_s
            self._changed.notify()
            self._wake_fast_path()

    def drop(self, queue: ImageQueue, requests: Collection[TileRequest]) -> None:
        """Withdraw windows of a queue; waiting for their results raises Cancelled."""
        with self._changed:
            self._withdraw(queue, [each for each in queue.requests if each in requests])

    def leave(self, queue: ImageQueue) -> None:
        """Withdraw all windows of a queue and refuse further ones."""
        with self._changed:
            queue.is_left = True
            self._withdraw(queue, tuple(queue.requests))

    def max_windows(self, request: TileRequest) -> int:
        """Return the most windows like this one that a batch may have.

        Those computed in float32 go one by one: together they would only keep others waiting.
        """
        if request.is_exact or is_deep(request.window):
            return 1
        most = most_windows(request.engine.info, request.px)
        max_px = self._max_batch_px.get(request.engine.info.model)
        return most if max_px is None else max(1, min(most, max_px // request.px))

    def limit_batches(self, requests: Sequence[TileRequest]) -> int:
        """Halve what batches of a model may have, after the device had no memory for this one.

        Returns:
            the most pixels of such a batch from now on.
        """
        model = requests[0].engine.info.model
        max_px = sum(request.px for request in requests) // 2
        self._max_batch_px[model] = min(self._max_batch_px.get(model, max_px), max_px)
        return self._max_batch_px[model]

    def next_batch(self, *, is_patient: bool) -> list[TileRequest]:
        """Return the next batch: at most `max_windows`, all alike; none once closed.

        Their number is a power of two, so that devices, which make something anew for each shape
        and number that comes, see few.

        Args:
            is_patient: wait for a window if there is none.
        """
        with self._changed:
            self._busy_with = ()
            while is_patient and not self._waiting and self._end is None:
                self._changed.wait()
            if not self._waiting:
                return []
            first = self._serve(min(self._waiting, key=_urgency))
            batch = [first]
            most = min(self.max_windows(first), 1 + self._count_like(first))
            limit = 1 << (most.bit_length() - 1)
            while len(batch) < limit and (queue := self._next_like(first)):
                batch.append(self._serve(queue))
            self._busy_with = tuple(request.queue for request in batch)
            self._wake_fast_path()
            return batch

    def next_for_fast_path(self) -> TileRequest | None:
        """Return a window of a small image, as soon as one would wait for a batch of others.

        Waits for it; returns None once closed.
        """
        with self._fast_path_changed:
            while self._end is None:
                if (queue := self._next_for_fast_path()) is not None:
                    return self._serve(queue)
                self._fast_path_changed.wait()
            return None

    def close(self, reason: str) -> None:
        """Close the queue; every window that waits fails with InternalError, `reason` its detail.

        Closed again, the first reason counts.
        """
        with self._changed:
            self._end = self._end if self._end is not None else reason
            for queue in tuple(self._waiting):
                self._withdraw(queue, tuple(queue.requests), reason)
            self._changed.notify_all()
            self._fast_path_changed.notify_all()

    def _withdraw(
        self, queue: ImageQueue, requests: Collection[TileRequest], reason: str | None = None
    ) -> None:
        """Remove windows of a queue, each with an error of its own: Cancelled without a reason."""
        for request in requests:
            queue.requests.remove(request)
            request.fail(Cancelled() if reason is None else InternalError(detail=reason))
        if queue in self._waiting and not queue.requests:
            self._end_waiting(queue)

    def _count_like(self, request: TileRequest) -> int:
        """Count the windows that `_next_like` would find, one after the other."""
        return sum(
            sum(1 for _ in takewhile(request.goes_with, queue.requests)) for queue in self._waiting
        )

    def _next_like(self, request: TileRequest) -> ImageQueue | None:
        like = [queue for queue in self._waiting if queue.requests[0].goes_with(request)]
        return min(like, key=_urgency, default=None)

    def _next_for_fast_path(self) -> ImageQueue | None:
        if not self._busy_with:
            return None
        others = [queue for queue in self._waiting if queue not in self._busy_with]
        small = [queue for queue in others if queue.requests[0].fits_fast_path]
        return min(small, key=_urgency, default=None)

    def _wake_fast_path(self) -> None:
        if self._next_for_fast_path() is not None:
            self._fast_path_changed.notify()

    def _serve(self, queue: ImageQueue) -> TileRequest:
        request = queue.requests.popleft()
        keys_waiting = len({id(each.key) for each in self._waiting})
        queue.key.clock.charge(queue, request.cost_s, queue.key.waiting)
        self._clock.charge(queue.key, request.cost_s, keys_waiting)
        if not queue.requests:
            self._end_waiting(queue)
        return request

    def _begin(self, queue: ImageQueue) -> None:
        if not queue.key.waiting:
            self._clock.begin(queue.key)
        queue.key.clock.begin(queue)
        queue.key.waiting += 1
        self._waiting.append(queue)

    def _end_waiting(self, queue: ImageQueue) -> None:
        queue.key.waiting -= 1
        self._waiting.remove(queue)


def _urgency(queue: ImageQueue) -> tuple[float, float, float, int]:
    """Return the sort key of queues: the charge of the key, the queue's own, its cost, its age."""
    return queue.key.charged, queue.charged, queue.requests[0].cost_s, queue.number
