"""What the workers have done and how they are, in numbers: a worker's own, and those of all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from upscaled.upscale.model_choice import Rung


class ModelFigures(BaseModel):
    """What one model's networks have done, summed.

    batches: how often the device was given windows. windows: how many it was given. places: how
    many it would have taken in those batches. trunk_px: pixels at which a network's body ran, halo
    included (see `ModelSpec.trunk_pixels`). device_s: seconds that the device was at it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batches: int = 0
    windows: int = 0
    places: int = 0
    trunk_px: int = 0
    device_s: float = 0

    def __add__(self, other: "ModelFigures") -> "ModelFigures":
        return ModelFigures(
            batches=self.batches + other.batches,
            windows=self.windows + other.windows,
            places=self.places + other.places,
            trunk_px=self.trunk_px + other.trunk_px,
            device_s=self.device_s + other.device_s,
        )


class WorkerFigures(BaseModel):
    """One worker since its start. `models` by the registry's names; cpu_s and resident_bytes are
    the worker's own, without its decoders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, ModelFigures] = {}
    decoder_deaths: int = 0
    cpu_s: float = 0
    resident_bytes: int = 0

    def __add__(self, other: "WorkerFigures") -> "WorkerFigures":
        models = dict(self.models)
        for name, figures in other.models.items():
            models[name] = models.get(name, ModelFigures()) + figures
        return WorkerFigures(
            models=models,
            decoder_deaths=self.decoder_deaths + other.decoder_deaths,
            cpu_s=self.cpu_s + other.cpu_s,
            resident_bytes=self.resident_bytes + other.resident_bytes,
        )


class EngineInUse(NamedTuple):
    """What answers one scale: a model, and what runs it on which device."""

    scale: int
    model: str
    label: str
    device: str


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """All workers of a pool.

    waiting, waiting_most: images in the queue, and how many it takes. keys_waiting,
    most_of_one_key: API keys that have images there, and the most that one of them has. running,
    running_most: images at workers, and places at those that are ready. restarts: workers that
    died and were replaced. failed_starts: those that never became ready. done: summed over all
    workers there ever were; it is a second old at most. resident_bytes: by the number of each
    worker that is ready. ladders: by scale, what `auto` chooses from, best first. seconds_per_px:
    device seconds for one input pixel, by model and scale, of those that have been measured.
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
    engines: frozenset[EngineInUse] = frozenset()
    done: WorkerFigures = field(default_factory=WorkerFigures)
    resident_bytes: Mapping[int, int] = field(default_factory=dict)
    ladders: Mapping[int, tuple[Rung, ...]] = field(default_factory=dict)
    seconds_per_px: Mapping[tuple[str, int], float] = field(default_factory=dict)
