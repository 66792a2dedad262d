"""Simulate machines behind a balancer, and the answers that queueing theory has.

A machine is one front end with its workers. An image goes to the worker that has the fewest in
flight, and waits in the front end's queue, in order, while no worker has a slot free; a full queue
refuses it. The images of one worker share its device evenly, as the scheduler's turns do, so that
an image of which `n` are in flight takes `n` times as long as alone.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WARM_UP_SHARE: Final = 0.1
"""Share of the images at the start that is not counted: the queues are empty then."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines that are alike. slots: images in flight at a worker. max_queue: of a front end."""

    machines: int
    workers: int = 1
    slots: int = 4
    max_queue: int = 32


@dataclass(frozen=True, slots=True)
class Simulated:
    """Seconds from arrival to result of each image counted; NaN for one that was refused."""

    latencies_s: Floats
    work_s: Floats

    @property
    def refused_share(self) -> float:
        return float(np.isnan(self.latencies_s).mean())

    def percentile_s(self, percent: float, work_within_s: float = math.inf) -> float:
        """Return a percentile of the answered images of at most so much work."""
        chosen = self.latencies_s[(self.work_s <= work_within_s) & ~np.isnan(self.latencies_s)]
        return float(np.percentile(chosen, percent)) if len(chosen) else math.nan


class _Worker:
    """One device, shared evenly. `served_s` is the work that each image in flight has had."""

    def __init__(self) -> None:
        self.in_flight: list[tuple[float, int]] = []
        self._now_s = self._served_s = 0.0

    def next_end_s(self) -> float:
        if not self.in_flight:
            return math.inf
        return self._now_s + (self.in_flight[0][0] - self._served_s) * len(self.in_flight)

    def add(self, now_s: float, number: int, work_s: float) -> None:
        self._advance(now_s)
        heapq.heappush(self.in_flight, (self._served_s + work_s, number))

    def finish_next(self, now_s: float) -> int:
        self._advance(now_s)
        self._served_s, number = heapq.heappop(self.in_flight)
        return number

    def _advance(self, now_s: float) -> None:
        if self.in_flight:
            self._served_s += (now_s - self._now_s) / len(self.in_flight)
        self._now_s = now_s


class _Machine:
    """One front end: its queue, its workers, and what it has not answered yet."""

    def __init__(self, cluster: Cluster, work_s: Floats, ended_at_s: Floats) -> None:
        self._cluster = cluster
        self._work_s = work_s
        self._ended_at_s = ended_at_s
        self._workers = [_Worker() for _ in range(cluster.workers)]
        self._queue: deque[int] = deque()
        self.images = 0
        self.pending_s = 0.0

    def run_until(self, now_s: float) -> None:
        """Finish all that ends until then, each slot going to the first in the queue."""
        while True:
            worker = min(self._workers, key=_Worker.next_end_s)
            end_s = worker.next_end_s()
            if end_s > now_s or not worker.in_flight:
                return
            number = worker.finish_next(end_s)
            self._ended_at_s[number] = end_s
            self.images -= 1
            self.pending_s -= self._work_s[number]
            if self._queue:
                following = self._queue.popleft()
                worker.add(end_s, following, self._work_s[following])

    def accept(self, now_s: float, number: int) -> None:
        """Start an image, queue it, or refuse it."""
        worker = min(self._workers, key=lambda each: len(each.in_flight))
        if len(worker.in_flight) < self._cluster.slots:
            worker.add(now_s, number, self._work_s[number])
        elif len(self._queue) < self._cluster.max_queue:
            self._queue.append(number)
        else:
            return
        self.images += 1
        self.pending_s += self._work_s[number]


def _pick_count(machine: _Machine) -> float:
    return machine.images


def _pick_pending(machine: _Machine) -> float:
    return machine.pending_s


_CHOICES: Final[Mapping[str, tuple[int, Callable[[_Machine], float]]]] = {
    "random": (1, _pick_count),
    "two by count": (2, _pick_count),
    "two by pixels": (2, _pick_pending),
}
SPREADS: Final = ("random", "turns", "two by count", "two by pixels")
"""Ways to choose a machine: any; in turns; of any two the one with fewer images, or less work."""


def simulate(
    cluster: Cluster, arrived_at_s: Floats, work_s: Floats, spread: str, seed: int
) -> Simulated:
    """Send the images to the machines as `spread` says, and return what became of them.

    Args:
        arrived_at_s: in order.
        work_s: seconds that each takes alone on a worker.
    """
    count = len(work_s)
    ended_at_s = np.full(count, math.nan)
    machines = [_Machine(cluster, work_s, ended_at_s) for _ in range(cluster.machines)]
    candidates, weigh = _CHOICES.get(spread, (1, _pick_count))
    candidates = min(candidates, cluster.machines)
    drawn = _draw_machines(np.random.default_rng(seed), count, cluster.machines, candidates)
    if spread == "turns":
        drawn = (np.arange(count) % cluster.machines).reshape(-1, 1)
    for number in range(count):
        now_s = float(arrived_at_s[number])
        pair = [machines[at] for at in drawn[number]]
        for machine in pair:
            machine.run_until(now_s)
        min(pair, key=weigh).accept(now_s, number)
    for machine in machines:
        machine.run_until(math.inf)
    counted = slice(int(count * WARM_UP_SHARE), None)
    return Simulated((ended_at_s - arrived_at_s)[counted], work_s[counted])


def _draw_machines(
    rng: np.random.Generator, count: int, machines: int, candidates: int
) -> npt.NDArray[np.int64]:
    """Draw one machine for each image, or two different ones."""
    first = rng.integers(0, machines, count)
    if candidates == 1:
        return first.reshape(-1, 1)
    second = (first + rng.integers(1, machines, count)) % machines
    return np.stack([first, second], axis=1)


def draw_arrivals(rng: np.random.Generator, count: int, images_per_s: float) -> Floats:
    """Draw moments of independent arrivals, as of many clients that know nothing of each other."""
    return np.cumsum(rng.exponential(1 / images_per_s, count))


def share_that_waits(servers: int, load: float) -> float:
    """Return the share of images that wait at `servers` with random work (Erlang's C formula).

    load: the share of the servers' time that is asked for, under 1.
    """
    offered = servers * load
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def mean_wait_s(servers: int, load: float, mean_work_s: float) -> float:
    """Return the mean wait of M/M/c: random arrivals, exponential work, one queue."""
    return share_that_waits(servers, load) * mean_work_s / (servers * (1 - load))
