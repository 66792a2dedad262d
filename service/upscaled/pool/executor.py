"""Interface between the front end and what upscales images, and the types that cross it.

Everything on the front end's side is cheap, asynchronous and free of torch. What is behind the
interface may block, run out of memory or die. `pool.local` implements it with worker processes of
this machine, `pool.ray_serve.executor` with the replicas of a Ray cluster, tests with fakes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol

from pydantic import BaseModel, Field

from upscaled.errors import InternalError
from upscaled.image.output import OutputSpec
from upscaled.upscale.model_choice import AutoChoice, Rung
from upscaled.upscale.result import Result


class DeviceFault(InternalError):
    """A device failed the image, and its machine has no other one to try."""


OnTile = Callable[[int, int], None]
"""Called on the event loop with (done, total): before the first tile, after each, and from 0 again
where the image is begun anew. It must neither block nor raise."""


@dataclass(frozen=True, slots=True)
class StoreOrder:
    """Order to store a result on the machine that makes it, so that its bytes need not come back.

    url, endpoint: of the bucket and its server, as `BucketResults` has them. file_name: a new name,
    which only this request has; it is the same when the image is sent again. within_s: seconds
    after the image's arrival in which the result may be stored; then its lifetime begins.
    """

    url: str
    endpoint: str
    file_name: str
    within_s: float


@dataclass(frozen=True, slots=True)
class UpscaleRequest:
    """Request to upscale one image, with what the queue needs.

    scale: 2 or 4. width_px, height_px: the upright size of the source, by its header; with the
    scale they give its cost. output: what its result is to be. on_tile: called as the work
    advances; it does not cross to a worker. key_id: the API key that sent it; the queue and the
    workers are shared fairly between keys. model: the one that the client names, with its strength
    of denoising (`upscaled_models.registry`); "" for the worker's own choice. source_bytes: the
    length of its file; 0: not known. ladder: the rungs of that choice, best first, if all machines
    share them; empty: the worker's own. store: where a replica stores the result if it can; it is
    not sent to a worker.
    """

    request_id: str
    scale: int
    width_px: int
    height_px: int
    output: OutputSpec
    on_tile: Annotated[OnTile | None, Field(exclude=True)] = field(
        default=None, compare=False, repr=False
    )
    key_id: int = 0
    model: str = ""
    source_bytes: int = 0
    ladder: tuple[Rung, ...] = ()
    store: StoreOrder | None = None

    @property
    def is_deep(self) -> bool:
        return self.output.is_deep

    @property
    def source_px(self) -> int:
        """Return the pixels of its source, at least 1."""
        return max(1, self.width_px * self.height_px)

    @property
    def encoded_px(self) -> int:
        """Return the pixels of its result's file, at least 1."""
        return max(1, self.output.width_px * self.output.height_px)

    @property
    def result_px(self) -> int:
        """Return the pixels of its canvas in a worker; deep ones count twice, as they weigh."""
        return self.output.canvas_px


class Expectation(NamedTuple):
    """Prediction of an upscale, made from its header.

    seconds: of one worker, once it has a slot, alone on the device. models: the one that will make
    it; two, where the pixels decide: that for a harmed image first. Empty until a worker has
    reported its models.
    """

    seconds: float
    models: tuple[str, ...]


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
    second old at most. resident_bytes: by the number of each worker that is ready. workers: one by
    one; empty where they belong to a cluster. ladders: by scale, what `auto` chooses from, best
    first. seconds_per_px: device seconds for one input pixel, by model and scale, of those that
    have been measured.
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


class Executor(Protocol):
    """Executor that runs upscales outside the front end's process."""

    async def start(self) -> None:
        """Start the workers; returns at once, `is_ready` is true once one accepts work."""

    async def stop(self, grace_s: float) -> None:
        """Finish admitted work for at most `grace_s`, then end every worker."""

    def is_ready(self) -> bool:
        """Return whether an upscale sent now would be worked on."""

    def stats(self) -> PoolStats:
        """Return the statistics of the workers and of the queue; cheap."""

    def expect(self, request: UpscaleRequest) -> Expectation:
        """Predict how long an image will take, and which model will make it."""

    async def own_choice(self) -> AutoChoice:
        """Return the ladders of `auto` that the first ready worker's machine measured.

        Raises:
            ChildUnusable: no worker can start.
        """

    def adopt_ladders(self, ladders: Mapping[int, tuple[Rung, ...]]) -> None:
        """Let `auto` choose by these ladders from now on, instead of those of the workers."""

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        """Upscale one encoded image.

        A worker that dies is replaced and each of its images tried again, alone in a worker: so an
        image that kills workers ends no other image's work twice. Only deaths while it is alone
        count against an image. Cancelling the awaiting task stops the work at its next tile.

        Raises:
            RateLimitExceeded: the queue is full, or no worker can be started for now; with the
                estimated wait. Raised at once, except for a waiting request that is evicted because
                its key has more than its share and another key's request comes.
            MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the worker refused the image.
            InternalError: two workers died while this was their only image, or its work failed, or
                its deadline passed.
        """
        ...
