"""A network whose pixels can be worked out by hand: an exact integer box filter."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.engine.engine import EngineOutOfMemory, Started, Window


@dataclass
class BoxEngine:
    """Each result pixel depends on every input pixel up to `radius_px` away, and on none beyond.

    Outside the window counts as 0, as in a convolution's padding. `fold` makes the result depend
    on where in a `fold` x `fold` square the pixel lies, as folding networks do. A window larger
    than `room_px` does not fit the device.
    """

    radius_px: int = 3
    native_scale: int = 2
    window_px: int = 32
    halo_px: int = 3
    multiple_px: int = 1
    fold: int = 1
    room_px: int = 1_000_000
    model: str = "box"
    shape_step_px: int = 1
    batch: int = 1
    label: str = "box"
    seen: list[tuple[int, int]] = field(default_factory=list)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        return Boxed([self._run_one(window, reduce) for window in windows])

    def run(self, windows: Iterable[Window], reduce: int = 1) -> Iterator[Window]:
        for window in windows:
            yield self._run_one(window, reduce)

    def _run_one(self, window: Window, reduce: int) -> Window:
        self.seen.append(window.shape[:2])
        if max(window.shape[:2]) > self.room_px:
            raise EngineOutOfMemory(str(window.shape))
        return average_down(self.filter(window), reduce)

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


@dataclass(frozen=True)
class Boxed:
    windows: list[Window]

    def finish(self) -> list[Window]:
        return self.windows


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
    rounded: Window = ((squares * 2 + by * by) // (2 * by * by)).astype(np.uint8)
    return rounded
