"""Work out how many machines a plan needs, and which resource is full first."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from scripts.simulation.plan import Costs, Pictures, Plan
from scripts.simulation.queueing import SPREADS, Cluster, Simulated, draw_arrivals, simulate

IMAGES: Final = 30_000
"""Images of a simulation: p99 differs by up to a tenth from one seed to another."""

IMAGES_OF_A_WORKER: Final = 1000
MOST_IMAGES: Final = 300_000
"""A larger simulation takes minutes; each of very many workers then sees fewer images."""

MOST_MACHINES: Final = 4096
MOST_LOAD: Final = 0.9
"""Share of the workers' time beyond which a day's fluctuations leave no reserve."""

MOST_FRONT_END_LOAD: Final = 0.7
"""Share of a core that a front end may use: its event loop is one thread, and its probes wait."""

_BYTES_PER_MEGABYTE: Final = 1e6
_BITS_OF_A_BYTE: Final = 8
_GIB: Final = 2**30
_CANVAS_GIB: Final = 0.2
"""A second result of 36 megapixels as a worker computes it; more are not in flight at once."""

_LEAST_FRONT_END_S: Final = 1e-6
"""Limits the processor time of a picture from below: a measurement may be too coarse for it."""

_MORE_BODIES: Final = 8
"""Files that a front end has memory for beside those that wait and those at its workers."""


class Unreachable(ValueError):
    """No number of such machines does what the plan wants; the text says why."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource of all machines together, and the images an hour at which it is full."""

    resource: str
    images_per_hour: float


@dataclass(frozen=True, slots=True)
class Sizing:
    """The least machines that do what a plan wants. by_spread: each way to spread, simulated.

    memory_gib: that one machine needs at most, at any rate. kept_gib: results kept for an hour.
    limits: the one that is full first comes first.
    """

    machines: int
    load: float
    mean_work_s: float
    by_spread: dict[str, Simulated]
    limits: tuple[Limit, ...]
    memory_gib: float
    kept_gib: float


def size(plan: Plan, costs: Costs, pictures: Pictures) -> Sizing:
    """Find the least machines, by simulation, and describe them.

    Raises:
        Unreachable: no number of machines is enough.
    """
    load = _Load(plan, costs, pictures)
    alone_s = float(np.percentile(load.work_s, 95))
    if alone_s > plan.p95_s:
        raise Unreachable(
            f"a p95 of {plan.p95_s:g} s is out of reach: alone on a worker one picture in twenty "
            f"takes {alone_s:.3g} s or more; a faster device or model is needed, not more of them"
        )
    machines = _find_least(load)
    each = {name: load.run(machines, name) for name in SPREADS}
    used = plan.images_per_s * float(load.work_s.mean()) / (machines * plan.machine.workers)
    kept_bytes = plan.images_per_hour * plan.url_share * float(pictures.result_bytes.mean())
    return Sizing(
        machines=machines,
        load=used,
        mean_work_s=float(load.work_s.mean()),
        by_spread=each,
        limits=find_limits(plan, costs, pictures, machines),
        memory_gib=_most_memory_gib(plan),
        kept_gib=kept_bytes / _GIB,
    )


def find_limits(plan: Plan, costs: Costs, pictures: Pictures, machines: int) -> tuple[Limit, ...]:
    """Return at which rate each resource of so many machines is full, the first one first."""
    machine = plan.machine
    work_s = float(costs.work_s(pictures.px).mean())
    result_bytes = float(pictures.result_bytes.mean())
    in_bytes = float(pictures.source_bytes.mean()) + plan.url_share * result_bytes
    out_bytes = (1 + plan.url_share) * result_bytes
    network = machine.network_gbit_per_s * 1e9 / _BITS_OF_A_BYTE
    per_s = {
        "workers": machines * machine.workers / work_s,
        "front ends' processor": machines / front_end_s(costs, pictures),
        "database, if metered": machine.database_images_per_s,
        "network of the machines": machines * network / max(in_bytes, out_bytes),
    }
    if plan.url_share:
        per_s["writes of a bucket's prefix"] = machine.bucket_writes_per_s / plan.url_share
    limits = [Limit(name, 3600 * rate) for name, rate in per_s.items()]
    return tuple(sorted(limits, key=lambda limit: limit.images_per_hour))


def front_end_s(costs: Costs, pictures: Pictures) -> float:
    """Return the mean processor seconds that a picture takes of its front end."""
    for_each_s, per_megabyte_s = costs.front_end_s
    moved_bytes = float((pictures.source_bytes + pictures.result_bytes).mean())
    seconds = for_each_s + per_megabyte_s * moved_bytes / _BYTES_PER_MEGABYTE
    return max(seconds, _LEAST_FRONT_END_S)


@dataclass
class _Load:
    """The same images at the same moments for every number of machines, so that they compare."""

    plan: Plan
    costs: Costs
    pictures: Pictures

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.plan.seed)
        busy = self.plan.images_per_s * float(self.costs.work_s(self.pictures.px).mean())
        images = min(MOST_IMAGES, max(IMAGES, int(busy * IMAGES_OF_A_WORKER)))
        self.work_s = self.costs.work_s(self.pictures.take(rng, images).px)
        self.arrived_at_s = draw_arrivals(rng, images, self.plan.images_per_s)

    def run(self, machines: int, spread: str) -> Simulated:
        machine = self.plan.machine
        cluster = Cluster(machines, machine.workers, machine.slots, machine.max_queue)
        return simulate(cluster, self.arrived_at_s, self.work_s, spread, self.plan.seed)


def _find_least(load: _Load) -> int:
    """Double the machines until there are enough, and halve the distance to the last too few."""
    plan, work_s = load.plan, float(load.work_s.mean())
    needs = (
        plan.images_per_s * work_s / (plan.machine.workers * MOST_LOAD),
        plan.images_per_s * front_end_s(load.costs, load.pictures) / MOST_FRONT_END_LOAD,
    )
    most = max(1, *(math.ceil(need) for need in needs))
    too_few = most - 1
    while not _is_enough(load, most):
        too_few, most = most, 2 * most
        if most > MOST_MACHINES:
            raise Unreachable(
                f"{too_few} machines do not do: a p95 of {plan.p95_s:g} s is too near to what a "
                "picture takes alone, or images_per_hour is far too high"
            )
    while most - too_few > 1:
        middle = (too_few + most) // 2
        too_few, most = (too_few, middle) if _is_enough(load, middle) else (middle, most)
    return most


def _is_enough(load: _Load, machines: int) -> bool:
    simulated = load.run(machines, load.plan.spread)
    is_fast = simulated.percentile_s(95) <= load.plan.p95_s
    return is_fast and simulated.refused_share <= load.plan.refused


def _most_memory_gib(plan: Plan) -> float:
    machine = plan.machine
    bodies = machine.max_queue + machine.workers * machine.slots + _MORE_BODIES
    worker_gib = machine.worker_memory_gib + (_CANVAS_GIB if machine.slots > 1 else 0)
    return machine.workers * worker_gib + bodies * machine.max_file_bytes / _GIB
