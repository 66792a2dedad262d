"""Which windows of an image a network sees, and which part of each result is kept.

Integers only. Both axes are planned apart and multiplied out. On each axis all windows have one
length; those at the border are shifted inwards instead of shrunk, so an image's border is always
a window's border too and its pixels see exactly what they would see in the whole image. The
cores cut the image without gap or overlap, and each keeps at least the halo between itself and
any window border that is not the image's own.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upscaled.image.pixels import Pixels
from upscaled_models.backends.base import Window, least_window_px, round_up


@dataclass(frozen=True, slots=True)
class Region:
    """A half-open rectangle: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    def scaled(self, factor: int) -> "Region":
        """The same rectangle on a canvas `factor` times as large."""
        return Region(
            self.top * factor, self.left * factor, self.height * factor, self.width * factor
        )

    def grown(self, by_px: int, limit: "Region") -> "Region":
        """The same rectangle with `by_px` more on each side, as far as `limit` reaches."""
        top, left = max(limit.top, self.top - by_px), max(limit.left, self.left - by_px)
        bottom = min(limit.bottom, self.bottom + by_px)
        right = min(limit.right, self.right + by_px)
        return Region(top, left, bottom - top, right - left)

    def within(self, outer: "Region") -> "Region":
        """The same rectangle, its place counted from `outer`'s corner."""
        return Region(self.top - outer.top, self.left - outer.left, self.height, self.width)

    def read(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """A view of the rectangle in `[H, W, ...]`, cut short where it passes the array's end."""
        return pixels[self.top : self.bottom, self.left : self.right]

    def write(self, canvas: NDArray[Any], pixels: NDArray[Any]) -> None:
        """Put `[height, width, ...]` pixels at this place of the canvas.

        Raises:
            ValueError: the shapes differ; nothing is broadcast.
        """
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(f"{pixels.shape} does not fill {self}")
        canvas[self.top : self.bottom, self.left : self.right] = pixels


@dataclass(frozen=True, slots=True)
class Tile:
    """One step of the work, in input pixels: `core` is kept of what the network makes of `window`.

    The window may reach past the image's right or bottom edge by less than the network's
    multiple: those pixels are padded.
    """

    core: Region
    window: Region


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Every tile of one image, row by row."""

    tiles: tuple[Tile, ...]

    @classmethod
    def of(
        cls,
        height_px: int,
        width_px: int,
        *,
        window_px: int,
        halo_px: int,
        multiple_px: int,
        shape_step_px: int = 1,
    ) -> "TilePlan":
        """Plan an image of `height_px` x `width_px`.

        Args:
            window_px: longest side of a window, halo included.
            halo_px: pixels around a core that are computed and discarded.
            multiple_px: every window's start and side is a multiple of it.
            shape_step_px: on an axis of several windows their length is a multiple of this too, so
                that images of many sizes make few shapes; not where `window_px` is too short for
                it. A multiple of `multiple_px`, or 1.

        Raises:
            ValueError: the window leaves no room for a core (see `least_window_px`).
        """
        step_px = _usable_step(window_px, halo_px, multiple_px, shape_step_px)
        rows = _plan_axis(height_px, window_px, halo_px, multiple_px, step_px)
        columns = _plan_axis(width_px, window_px, halo_px, multiple_px, step_px)
        return cls(tuple(_cross(row, column) for row, column in product(rows, columns)))


def cut(pixels: Pixels, plan: TilePlan) -> Iterator[Window]:
    """The plan's windows of `[H, W, 3]` one by one, padded to their full size."""
    return (cut_one(pixels, tile) for tile in plan.tiles)


def cut_one(pixels: Pixels, tile: Tile) -> Window:
    """A tile's window of `[H, W, 3]`."""
    return pad(tile.window.read(pixels), tile.window.height, tile.window.width)


def pad(pixels: Pixels, height: int, width: int) -> Window:
    """`[h, w, 3]` made `[height, width, 3]` by mirroring at the right and bottom edge.

    An axis too short to be mirrored repeats its last pixel.
    """
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    for axis, count in enumerate(missing):
        if count:
            mode = "reflect" if count < pixels.shape[axis] else "edge"
            widths = [(0, count if axis == at else 0) for at in range(3)]
            pixels = np.pad(pixels, widths, mode=mode)  # type: ignore[call-overload]
    return np.ascontiguousarray(pixels)


def count_window_px(
    height_px: int,
    width_px: int,
    *,
    window_px: int,
    halo_px: int,
    multiple_px: int,
    shape_step_px: int = 1,
) -> int:
    """Pixels of all windows of a plan, halos included: what an image costs. Args as `TilePlan.of`.

    Raises:
        ValueError: the window leaves no room for a core.
    """
    step_px = _usable_step(window_px, halo_px, multiple_px, shape_step_px)
    sums = (
        sum(span.length for span in _plan_axis(side, window_px, halo_px, multiple_px, step_px))
        for side in (height_px, width_px)
    )
    return math.prod(sums)


@dataclass(frozen=True, slots=True)
class _Span:
    """One axis of a tile: where the core and its window start, and how long they are."""

    core_start: int
    core_length: int
    start: int
    length: int


def _cross(row: _Span, column: _Span) -> Tile:
    return Tile(
        core=Region(row.core_start, column.core_start, row.core_length, column.core_length),
        window=Region(row.start, column.start, row.length, column.length),
    )


def _usable_step(window_px: int, halo: int, multiple: int, shape_step: int) -> int:
    """The step of window lengths: the multiple alone where no longer one leaves room for a core."""
    if window_px < least_window_px(halo, multiple):
        raise ValueError(f"a window of {window_px} px leaves no core beside a halo of {halo} px")
    longest = window_px // max(shape_step, multiple) * max(shape_step, multiple)
    return multiple if longest < least_window_px(halo, multiple) else max(shape_step, multiple)


def _plan_axis(side: int, window_px: int, halo: int, multiple: int, step: int) -> list[_Span]:
    padded = round_up(side, multiple)
    if padded <= window_px:
        return [_Span(0, side, 0, padded)]
    overlap = round_up(2 * halo, multiple)
    longest = window_px // step * step
    count = _divide_up(padded - overlap, longest - overlap)
    # As few windows as the longest length allows, then as short as that number allows.
    length = round_up(_divide_up(padded - overlap, count) + overlap, step)
    advance = length - overlap
    starts = [*range(0, (count - 1) * advance, advance), padded - length]
    # Neighbours part in the middle of what they share: both keep half of it as halo.
    cuts = [(start + before + length) // 2 for before, start in pairwise(starts)]
    ends = [*cuts, side]
    return [
        _Span(core, end - core, start, length)
        for core, end, start in zip([0, *cuts], ends, starts, strict=True)
    ]


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)
