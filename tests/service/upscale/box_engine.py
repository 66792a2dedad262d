"""A network whose pixels can be worked out by hand: an exact integer box filter."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tests.models.specs import spec_of
from upscaled.config import Settings
from upscaled.decoder.pool import Decoder
from upscaled.image.decode import decode_file
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image, MetadataPlan
from upscaled.upscale.core import Core
from upscaled.upscale.loaded_models import LoadedModels
from upscaled.upscale.loop import TilesDone, upscale_by_tiles
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.scheduler import BatchDone, Scheduler
from upscaled.upscale.stream import Stream
from upscaled_models.backends.base import Computed, Engine, EngineInfo, Started, Window
from upscaled_models.errors import EngineOutOfMemory


@dataclass
class BoxEngine:
    """Each result pixel depends on every input pixel up to `radius_px` away, and on none beyond.

    Outside the window counts as 0, as in a convolution's padding. `fold` makes the result depend
    on where in a `fold` x `fold` square the pixel lies, as folding networks do. A window with a
    side over `room_px` does not fit the device, nor do `room_windows` of any size and one more.
    `batches` are the sizes of those computed, `exact` the windows that were to be exact.
    """

    radius_px: int = 3
    native_scale: int = 2
    window_px: int = 32
    halo_px: int = 3
    multiple_px: int = 1
    fold: int = 1
    room_px: int = 1_000_000
    room_windows: int = 1_000_000
    shape_step_px: int = 1
    batch: int = 1
    small_batch: int = 1
    takes_new_shapes: bool = False
    model: str = "box"
    label: str = "box"
    proof: str = ""
    concurrent: "BoxEngine | None" = None
    seen: list[tuple[int, int]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    exact: list[Window] = field(default_factory=list)

    @property
    def info(self) -> EngineInfo:
        spec = spec_of(
            self.model,
            native_scale=self.native_scale,
            halo_px=self.halo_px,
            multiple_px=self.multiple_px,
        )
        sizes = self.window_px, self.shape_step_px, self.batch, self.small_batch
        return EngineInfo(spec, self.label, *sizes, self.takes_new_shapes, self.proof)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        assert 1 <= len(windows) <= max(self.batch, self.small_batch)
        assert len({window.shape for window in windows}) == 1
        self.seen += [(window.shape[0], window.shape[1]) for window in windows]
        if max(windows[0].shape[:2]) > self.room_px or len(windows) > self.room_windows:
            raise EngineOutOfMemory(f"{len(windows)} x {windows[0].shape}")
        self.batches.append(len(windows))
        self.exact += windows if is_exact else []
        return Computed([average_down(self.filter(window), reduce) for window in windows])

    def filter(self, window: Window) -> Window:
        """The whole network on one `[h, w, 3]`: sum over the box, times the place, modulo 251."""
        height, width = window.shape[:2]
        total = box_sum(window.astype(np.int64), self.radius_px)
        rows = np.arange(height)[:, None, None] % self.fold
        columns = np.arange(width)[None, :, None] % self.fold
        total = total * (1 + rows + self.fold * columns)
        large = total.repeat(self.native_scale, axis=0).repeat(self.native_scale, axis=1)
        large += np.arange(height * self.native_scale)[:, None, None] % self.native_scale * 17
        large += np.arange(width * self.native_scale)[None, :, None] % self.native_scale * 29
        return (large % 251).astype(np.uint8)


@contextmanager
def stream_of(engine: Engine) -> Iterator[Stream]:
    """A stream that has the engine to itself."""
    with Scheduler() as scheduler, scheduler.open_stream(engine) as stream:
        yield stream


def upscale_through(image: Image, scale: int, engine: Engine, **options: Any) -> Image:
    """Upscale an image through an engine of its own, with the options of `upscale_by_tiles`."""
    with stream_of(engine) as stream:
        return finish(upscale_by_tiles(image, scale, stream, **options))


def finish(progress: Iterator[TilesDone]) -> Image:
    """Run all tiles, and return the result."""
    results = [tiles_done.result for tiles_done in progress]
    assert results[-1] is not None
    return results[-1]


class RowsReady:
    """The rows of a result as they were when they were said to be final."""

    def __init__(self, progress: Iterator[TilesDone]) -> None:
        self.canvases: list[Image] = []
        self.counts: list[int] = []
        self._seen: list[Pixels] = []
        for tiles_done in progress:
            if tiles_done.result is not None:
                self.canvases.append(tiles_done.result)
                self.counts.append(tiles_done.rows_ready)
                self._seen.append(tiles_done.result.rgb[: tiles_done.rows_ready].copy())

    def assert_final(self) -> None:
        """Require that none of them changed afterwards, and that their number only grew."""
        assert self.counts == sorted(set(self.counts))
        assert self.counts[-1] == self.canvases[-1].height_px
        for rows in self._seen:
            assert np.array_equal(rows, self.canvases[-1].rgb[: len(rows)])


@dataclass(frozen=True)
class DecoderHere:
    """Decodes in this process."""

    def decode(self, source: bytes, plan: MetadataPlan | None = None) -> Image:
        return decode_file(source, plan=plan)


@contextmanager
def core_of(engine: Engine, settings: Settings | None = None) -> Iterator[Core]:
    """Open a core whose only model is that engine."""
    ladders = {scale: (Rung(model=engine.info.model),) for scale in (2, 4)}
    with Scheduler() as scheduler, LoadedModels(lambda _: engine) as models:
        yield Core(
            settings or Settings(), models, scheduler, cast(Decoder, DecoderHere()), ladders, {}
        )


class CountedBatches(list[BatchDone]):
    """Keeps the batches of a device."""

    def count_batch(self, done: BatchDone) -> None:
        self.append(done)


def box_sum(pixels: NDArray[np.int64], radius: int) -> NDArray[np.int64]:
    """Sum over the `2 * radius + 1` square around each pixel of `[h, w, c]`, 0 outside."""
    for axis in (0, 1):
        widths = [(radius + 1, radius) if at == axis else (0, 0) for at in range(3)]
        running = np.pad(pixels, widths).cumsum(axis=axis)
        side = pixels.shape[axis]
        ahead = np.take(running, np.arange(2 * radius + 1, 2 * radius + 1 + side), axis=axis)
        behind = np.take(running, np.arange(side), axis=axis)
        pixels = ahead - behind
    return pixels


def average_down(window: Window, by: int) -> Window:
    """Squares of `by` x `by` averaged, rounded to nearest."""
    height, width = window.shape[0] // by, window.shape[1] // by
    squares = window.reshape(height, by, width, by, 3).astype(np.int64).sum(axis=(1, 3))
    rounded: Window = ((squares * 2 + by * by) // (2 * by * by)).astype(window.dtype)
    return rounded
