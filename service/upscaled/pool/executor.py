"""What crosses the process boundary, and the one interface both of its implementations share.

Everything before the boundary is cheap, asynchronous and free of torch. Everything behind it may
block, run out of memory or die.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from upscaled.image.output import OutputSpec
from upscaled.pool.stats import PoolFigures

OnTile = Callable[[int, int], None]
"""Called on the event loop with (done, total): before the first tile, after each, and from 0 again
where the image is begun anew. It must neither block nor raise."""


def _ignore_tile(done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class UpscaleRequest:
    """One image's work order.

    `scale` is 2 or 4. `width_px` and `height_px` are the probed upright size of the source: with
    the scale they give the cost in trunk pixels, by which the queue estimates its waiting time.
    `output`: what its result is to be.
    `model`: the one that the client names; "" for the worker's own choice.
    `key_id`: the API key that sent it; the queue and the workers are shared fairly between keys.
    `on_tile` hears how far the work is.
    """

    request_id: str
    scale: int
    width_px: int
    height_px: int
    output: OutputSpec
    on_tile: OnTile = field(default=_ignore_tile, compare=False, repr=False)
    key_id: int = 0
    model: str = ""

    @property
    def is_deep(self) -> bool:
        """Whether its result has 16 bits a channel."""
        return self.output.is_deep

    @property
    def result_px(self) -> int:
        """Pixels of the canvas that a worker keeps for it; deep ones count twice, as they weigh."""
        return self.output.canvas_px


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds one image spent in each stage, for `Server-Timing`."""

    queue_s: float
    decode_s: float
    network_s: float
    encode_s: float


@dataclass(frozen=True, slots=True)
class Upscaled:
    """A finished image: encoded bytes, `image/jpeg` or `image/png`, and its exact size.

    model: the registry's name. engine: what ran it, as "torch float32". tempered_with: the faithful
    model that the result was mixed with; "" for none.
    """

    data: bytes
    media_type: str
    width_px: int
    height_px: int
    model: str
    times: StageTimes
    engine: str = ""
    tempered_with: str = ""


class Executor(Protocol):
    """Runs upscales behind the boundary: a local worker pool, or replicas on other machines."""

    async def start(self) -> None:
        """Start the workers; returns at once, `is_ready` tells when one can take work."""

    async def stop(self, grace_s: float) -> None:
        """Finish work under way for at most `grace_s`, then end every worker."""

    def is_ready(self) -> bool:
        """Whether an upscale sent now would be worked on."""

    def figures(self) -> PoolFigures:
        """How the workers are and what they have done; costs next to nothing."""

    def expected_s(self, request: UpscaleRequest) -> float:
        """Seconds that an image will take once its turn has come, alone on the device."""

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Upscaled:
        """Upscale one encoded image.

        A worker that dies is replaced and each of its images tried again, alone in a worker: an
        image that kills workers takes no other one along twice. Only deaths over it alone count
        against an image. Cancelling the awaiting task stops the work at its next tile.

        Raises:
            RateLimitExceeded: the queue is full, or no worker can be started for now; with a
                truthful wait. Raised at once, but for a request that waits while its key has more
                than its share and another key's request comes: it gives way.
            MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the worker refused the image.
            InternalError: two workers died under this image alone, or its work failed, or it
                outran its deadline.
        """
        ...
