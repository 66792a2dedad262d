"""Order the request queue: start-time fair queueing between API keys, in order within a key.

The work of a request is the seconds of a worker that it is expected to take, so a key that sends
large images, or names a large model, gets as much of the device as one that sends small ones, not
as many images. Where more requests wait than may wait, the newest request of the key with most is
evicted: a single key may fill the queue, and a second one has its share of it from its first
request on. As long as there are no more keys than places in the queue, each key can have a request
waiting.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Final, Generic, TypeVar

from upscaled.virtual_time import Flow, VirtualClock

_SMALLEST_PRUNE: Final = 64
"""Keys that are kept before idle ones are dropped for the first time."""

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Item(Generic[T]):
    """Request that waits; `number` is its arrival."""

    key_id: int
    work: float
    payload: T
    number: int


@dataclass(eq=False, slots=True)
class _KeyFlow(Flow, Generic[T]):
    """Requests of one key that wait, oldest first; `served_last` is its last service's number."""

    items: deque[_Item[T]] = field(default_factory=deque)
    waiting_work: float = 0
    served_last: int = -1

    def remove(self, item: _Item[T]) -> None:
        self.items.remove(item)
        self.waiting_work -= item.work

    def newest_sort_key(self) -> tuple[float, float]:
        """Return the order of the newest request: its start tag, then its key's last service."""
        tag = self.charged + self.waiting_work - self.items[-1].work
        return tag, self.served_last if len(self.items) == 1 else inf


class FairQueue(Generic[T]):
    """Fair queue of the requests of many keys, independent of clocks, threads and workers."""

    def __init__(self) -> None:
        self._clock = VirtualClock()
        self._flows: dict[int, _KeyFlow[T]] = {}
        self._items: dict[T, _Item[T]] = {}
        self._arrivals = count()
        self._services = count()
        self._prune_at = _SMALLEST_PRUNE

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._items)

    def __contains__(self, payload: T) -> bool:
        return payload in self._items

    def waiting_work(self) -> dict[int, float]:
        return {key_id: flow.waiting_work for key_id, flow in self._flows.items() if flow.items}

    def push(self, key_id: int, work: float, payload: T) -> None:
        """Add a request behind those of its key; `work` is in any one unit, above 0."""
        flow = self._flow_of(key_id)
        if not flow.items:
            self._clock.begin(flow)
        item = _Item(key_id, work, payload, next(self._arrivals))
        flow.items.append(item)
        flow.waiting_work += work
        self._items[payload] = item

    def discard(self, payload: T) -> None:
        """Remove a request, uncharged; one that does not wait is ignored."""
        item = self._items.pop(payload, None)
        if item is not None:
            self._flows[item.key_id].remove(item)

    def serve(self, payload: T) -> None:
        """Remove a request that is served now, and charge its key."""
        item = self._items.pop(payload)
        flow = self._flows[item.key_id]
        self._clock.charge(flow, item.work, sum(1 for each in self._flows.values() if each.items))
        flow.remove(item)
        flow.served_last = next(self._services)

    def in_order(self) -> Iterator[T]:
        """Iterate over the requests in the order in which they would be served without later ones.

        Of two keys charged equally the one that was not served for longer is first. What is served
        or discarded while iterating does not change the order of the rest.
        """
        heads: list[tuple[float, float, int, _Item[T], Iterator[_Item[T]]]] = []
        for flow in self._flows.values():
            if flow.items:
                rest = iter(tuple(flow.items))
                head = next(rest)
                heads.append((flow.charged, flow.served_last, head.number, head, rest))
        heapq.heapify(heads)
        while heads:
            tag, _, _, item, rest = heads[0]
            yield item.payload
            following = next(rest, None)
            if following is None:
                heapq.heappop(heads)
            else:
                entry = (tag + item.work, inf, following.number, following, rest)
                heapq.heapreplace(heads, entry)

    def choose_evicted(self, newest: T) -> T:
        """Return the request that is to give way where one more waits than may wait.

        It is the newest of the key that has the most waiting, so no key loses one that has no more
        than its share. Where more keys wait than requests may, each with one at most, it is the one
        that would be served last. Otherwise it is `newest` itself, the last that came.
        """
        own = self._items[newest]
        flow = self._flows[own.key_id]
        waiting = [each for each in self._flows.values() if each.items]
        longest = max(waiting, key=lambda each: (len(each.items), each.newest_sort_key()))
        is_longer = len(longest.items) > len(flow.items)
        is_later = len(flow.items) == 1 and longest.newest_sort_key() > flow.newest_sort_key()
        if is_longer or is_later:
            return longest.items[-1].payload
        return newest

    def admits_new_key(self) -> bool:
        """Return whether `choose_evicted` would spare the request of a new key."""
        waiting = [flow for flow in self._flows.values() if flow.items]
        newcomer = (self._clock.time, -1)
        return any(len(flow.items) > 1 or flow.newest_sort_key() > newcomer for flow in waiting)

    def _flow_of(self, key_id: int) -> _KeyFlow[T]:
        flow = self._flows.get(key_id)
        if flow is None:
            if len(self._flows) >= self._prune_at:
                self._prune()
            flow = self._flows[key_id] = _KeyFlow()
        return flow

    def _prune(self) -> None:
        """Drop the idle keys that would start at the clock, as new ones do."""
        self._flows = {
            key_id: flow
            for key_id, flow in self._flows.items()
            if flow.items or flow.charged > self._clock.time
        }
        self._prune_at = max(_SMALLEST_PRUNE, 2 * len(self._flows))
