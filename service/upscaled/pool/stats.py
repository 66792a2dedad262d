"""Statistics of one worker, and of a pool of workers with its request queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel

from upscaled.upscale.model_choice import Rung


class ModelStats(BaseModel, frozen=True, extra="forbid"):
    """Sums over one model's batches.

    batches: how often the device was given windows. windows: how many it was given. slots: how many
    windows those batches could have held. trunk_px: pixels at which a network's body ran, halo
    included (see `ModelSpec.trunk_pixels`). device_s: seconds that the device was at work.
    """

    batches: int = 0
    windows: int = 0
    slots: int = 0
    trunk_px: int = 0
    device_s: float = 0

    def __add__(self, other: "ModelStats") -> "ModelStats":
        sums = {
            name: getattr(self, name) + getattr(other, name) for name in ModelStats.model_fields
        }
        return ModelStats(**sums)


class WorkerStats(BaseModel, frozen=True, extra="forbid"):
    """Statistics of one worker since its start.

    models: by the registry's names. cpu_s, resident_bytes: its own, without its decoders'.
    """

    models: dict[str, ModelStats] = {}
    decoder_deaths: int = 0
    cpu_s: float = 0
    resident_bytes: int = 0

    def __add__(self, other: "WorkerStats") -> "WorkerStats":
        models = dict(self.models)
        for name, stats in other.models.items():
            models[name] = models.get(name, ModelStats()) + stats
        return WorkerStats(
            models=models,
            decoder_deaths=self.decoder_deaths + other.decoder_deaths,
            cpu_s=self.cpu_s + other.cpu_s,
            resident_bytes=self.resident_bytes + other.resident_bytes,
        )


class EngineInUse(NamedTuple):
    """Model that answers one scale, with the engine that runs it and its device."""

    scale: int
    model: str
    label: str
    device: str


class WorkerState(NamedTuple):
    """State of one worker, and of its successors after it dies.

    device: as the worker names it once it is ready, before that as the settings do. is_out: its
    device failed repeatedly, and is not used for a while. in_flight: images that it has.
    device_s: seconds that the device computed, for this worker and its predecessors.
    """

    number: int
    device: str
    is_ready: bool
    is_out: bool
    in_flight: int
    device_s: float


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Statistics of all workers of a pool, and of the request queue before them.

    waiting, waiting_most: images in the queue, and how many may be. keys_waiting,
    most_of_one_key: API keys that have images there, and the most that one of them has. running,
    running_most: images at workers, and the slots of those that are ready. restarts: workers that
    died and were replaced. failed_starts: starts after which no worker was ready. faults: images
    that one device failed and another one made. done: summed over all workers there ever were, a
    second old at most. resident_bytes: by the number of each worker
    that is ready. workers: one by one; empty where they belong to a cluster. ladders: by scale,
    what `auto` chooses from, best first. seconds_per_px: device seconds for one input pixel, by
    model and scale, of those that have been measured.
    """

    waiting: int = 0
    waiting_most: int = 0
    keys_waiting: int = 0
    most_of_one_key: int = 0
    running: int = 0
    running_most: int = 0
    workers_ready: int = 0
    workers_wanted: int = 0
    restarts: int = 0
    failed_starts: int = 0
    faults: int = 0
    engines: frozenset[EngineInUse] = frozenset()
    done: WorkerStats = field(default_factory=WorkerStats)
    resident_bytes: Mapping[int, int] = field(default_factory=dict)
    workers: tuple[WorkerState, ...] = ()
    ladders: Mapping[int, tuple[Rung, ...]] = field(default_factory=dict)
    seconds_per_px: Mapping[tuple[str, int], float] = field(default_factory=dict)
