"""Plan the windows in which an image goes through a network, in integers.

A window is what the network reads at once; its core is the part of the result that is kept. Both
axes are planned apart and multiplied out. On each axis all windows have one length; those at the
border are shifted inwards instead of shrunk, so an image's border is always a window's border too
and its pixels see exactly what they would see in the whole image. The cores cut the image without
gap or overlap, and each keeps at least the halo between itself and any window border that is not
the image's own.

Where any shape is ready, windows may be longer than the side of a square, and then narrower, where
that costs less: one long window has no halos inside. There the lowest windows of a whole image are
short: rows of a result are encoded once a row of windows is done, so less is left after the last of
them.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any, Final

import numpy as np

from upscaled.upscale.band_plan import BandSizes
from upscaled.upscale.region import Region
from upscaled.upscale.tile import PartWindows, Span, Tile, count_px, cross
from upscaled_models.backends.base import least_window_px, round_up

READY_WINDOW_PRICE_PX: Final = 4_096
"""Price of a window where any shape is ready: by the processor time of windows of 64x64 to 512x512
through `upscaled-x4-faithful` in 8 bits 1,200 for the network, 1,500 for its kernels for the first
window of a shape, and the rest for what surrounds it."""

COMPILED_WINDOW_PRICE_PX: Final = 16_384
"""Price where shapes are compiled, which costs 57,000, once for each."""

_MORE_ROWS: Final = 3
_LEAST_LOWEST_SHARE: Final = 1 / 6
"""While the lowest windows are computed, the rows of those above them are encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Sizes by which images are cut into tiles.

    window_px: longest side of a window, halo included. halo_px: pixels around a core that are
    computed and discarded. multiple_px: every window's start and side is a multiple of it.
    stretch: how many times `window_px` windows may be long, with no more pixels than a square of
    it, and where it is far longer than the halo. shape_step_px: where they may not be longer, and
    an axis of an image has several, their length is a multiple of this too, so that images of many
    sizes make few shapes; not where `window_px` is too short for it. A multiple of `multiple_px`,
    or 1. part_step_px: the step of all other lengths. window_price_px: what one more window costs,
    in pixels.

    needs_flat_halo: False where pixels beyond a window's border change nothing if all there is of
    one colour. ends_short: the lowest windows are as short as their number allows, the others as
    long as that takes, for no more pixels in all.

    bands: sizes of the bands in which windows of more pixels than `window_px` squared go through
    the network: they are then as tall as what they are for. None: there are no such windows.
    """

    window_px: int
    halo_px: int
    multiple_px: int
    shape_step_px: int = 1
    needs_flat_halo: bool = True
    ends_short: bool = False
    part_step_px: int = 1
    stretch: int = 1
    window_price_px: int = COMPILED_WINDOW_PRICE_PX
    bands: BandSizes | None = None

    def __post_init__(self) -> None:
        if self.window_px < least_window_px(self.halo_px, self.multiple_px):
            raise ValueError(
                f"a window of {self.window_px} px leaves no core beside a halo of {self.halo_px} px"
            )

    def plan(
        self,
        height_px: int,
        width_px: int,
        part: Region | None = None,
        seen: Region | None = None,
    ) -> tuple[Tile, ...]:
        """Return every tile of an image, row by row.

        Args:
            part: all of the image that the cores are to cut; None: the whole.
            seen: what of the image the windows for that part must show at least; None: the part and
                the halo around it.
        """
        whole = Region(0, 0, height_px, width_px)
        part = part or whole
        seen = seen or part.grown(self.halo_px, whole)
        rows, columns = self._widen(seen.top, seen.bottom), self._widen(seen.left, seen.right)
        if self.bands is not None:
            step = 1 if part == whole else self.step_of_parts_px
            size = rows[1] - rows[0], columns[1] - columns[0]
            width = round_up(int(self._divide_in_columns(self.bands, *size).width_px), step)
            across = self._plan_axis(width_px, (part.left, part.right), columns, width)
            return self._plan_columns(self.bands, (height_px, part), rows, across)
        if part == whole:
            heights, width = self._divide_whole(height_px, width_px)
        else:
            windows = self.divide(rows[1] - rows[0], columns[1] - columns[0])
            heights, width = (int(windows.height_px),) * 2, int(windows.width_px)
        down = self._plan_axis(height_px, (part.top, part.bottom), rows, *heights)
        across = self._plan_axis(width_px, (part.left, part.right), columns, width)
        return tuple(cross(row, column) for row, column in product(down, across))

    def count_px(self, height_px: int, width_px: int) -> int:
        """Return the pixels of all windows, halos included: the cost of an image."""
        if self.bands is not None:
            return count_px(self.plan(height_px, width_px))
        heights, width = self._divide_whole(height_px, width_px)
        sides = (
            self._plan_axis(side, (0, side), self._widen(0, side), *lengths)
            for side, lengths in ((height_px, heights), (width_px, (width,)))
        )
        return math.prod(sum(span.length for span in spans) for spans in sides)

    def divide(self, height_px: Any, width_px: Any) -> PartWindows:  # noqa: ANN401  (or arrays)
        """Return the windows that cost least for parts of an image of that size, halos included.

        As few rows of them as the longest windows need are tried, and up to three more.
        """
        if self.bands is not None:
            return self._divide_in_columns(self.bands, height_px, width_px)
        step, longest = self.step_of_parts_px, self._longest_px
        fewest = self._count(height_px, longest // step * step)
        tried = (
            self._divide_in_rows((height_px, width_px), fewest + more, longest)
            for more in range(_MORE_ROWS + 1 if longest > self.window_px else 1)
        )
        return functools.reduce(PartWindows.cheaper, tried)

    def _divide_in_columns(
        self,
        bands: BandSizes,
        height_px: Any,  # noqa: ANN401
        width_px: Any,  # noqa: ANN401
    ) -> PartWindows:
        """Return the windows for parts of that size, each as tall as the part."""
        step = self.step_of_parts_px
        height, rounded = round_up(height_px, step), round_up(width_px, step)
        is_one = height * rounded <= bands.most_px
        count = np.where(is_one, 1, self._count(width_px, bands.widest_px // step * step))
        several = round_up(self._shorten(width_px, count), step)
        width = np.where(is_one, width_px, np.where(count == 1, rounded, several))
        price = self.window_price_px * bands.count(height_px, width)
        shown_px = np.where(is_one, height * rounded, height_px * width)
        return PartWindows(height_px, width, count * (shown_px + price))

    def _plan_columns(
        self,
        bands: BandSizes,
        of: tuple[int, Region],
        rows: tuple[int, int],
        across: Sequence[Span],
    ) -> tuple[Tile, ...]:
        """Return the tiles of windows as tall as `rows`; `of`: the image's height, and its part."""
        (height_px, part), tiles = of, list[Tile]()
        step = 1 if part.height == height_px else self.step_of_parts_px
        for span in across:
            if int(bands.count(rows[1] - rows[0], span.length)) == 1:
                shown = rows[1] - rows[0]
                length = round_up(shown, step)
                length = shown if length * span.length > bands.most_px else length
                (row,) = self._plan_axis(height_px, (part.top, part.bottom), rows, length)
                tiles.append(cross(row, span))
                continue
            for band in bands.plan(*rows, span.length):
                top, bottom = max(part.top, band.final[0]), min(part.bottom, band.final[1])
                row = Span(top, bottom - top, band.window[0], band.window[1] - band.window[0])
                tiles.append(replace(cross(row, span), band=band, column=span.core_start))
        return tuple(sorted(tiles, key=lambda tile: (tile.core.top, tile.core.left)))

    def _divide_in_rows(
        self,
        size: tuple[Any, Any],
        rows: Any,  # noqa: ANN401
        longest: int,
    ) -> PartWindows:
        (height_px, width_px), step = size, self.step_of_parts_px
        height = round_up(self._shorten(height_px, rows), step)
        widest = np.minimum(self.window_px**2 // height, longest) // step * step
        width = round_up(self._shorten(width_px, self._count(width_px, widest)), step)
        count = self._count(height_px, height) * self._count(width_px, width)
        return PartWindows(height, width, count * (height * width + self.window_price_px))

    @property
    def step_of_parts_px(self) -> int:
        """Return the step of window lengths for parts: the multiple where no core would fit."""
        return self._usable_step(self.part_step_px)

    @property
    def _longest_px(self) -> int:
        """Return how long windows may be that are narrow enough."""
        least_px = least_window_px(self.halo_px, self.step_of_parts_px)
        is_long = self.stretch > 1 and self.window_px >= 2 * self.stretch * least_px
        return self.window_px * (self.stretch if is_long else 1)

    def _divide_whole(self, height_px: int, width_px: int) -> tuple[tuple[int, int], int]:
        """Return how high the windows of a whole image are, and the lowest of them; their width."""
        longest, step = self._longest_px, self.step_of_parts_px
        if longest > self.window_px:
            padded = (round_up(side, self.multiple_px) for side in (height_px, width_px))
            windows = self.divide(*padded)
            height, width = int(windows.height_px), int(windows.width_px)
        else:
            step = self._usable_step(self.shape_step_px)
            height, width = self._divide_axis(height_px), self._divide_axis(width_px)
        highest = min(longest, self.window_px**2 // width) // step * step
        return self._end_short(height_px, height, range(highest, height - 1, -step)), width

    def _divide_axis(self, side: int) -> int:
        """Return how long the windows of a whole axis are: as few as can be, then as short."""
        padded, step = round_up(side, self.multiple_px), self._usable_step(self.shape_step_px)
        if padded <= self.window_px:
            return padded
        count = self._count(padded, self.window_px // step * step)
        return int(round_up(self._shorten(padded, count), step))

    def _end_short(self, height_px: int, usual: int, heights: range) -> tuple[int, int]:
        """Return how high windows of a usual height are, by `ends_short`, and the lowest of them.

        heights: that they may have, the highest first.
        """
        padded = round_up(height_px, self.multiple_px)
        if not self.ends_short or usual >= padded:
            return usual, usual
        others = int(self._count(padded, usual)) - 1
        for height in heights:
            lowest = round_up(padded + others * (self._overlap - height), -heights.step)
            if lowest >= height * _LEAST_LOWEST_SHARE:
                return height, lowest
        return usual, usual

    @property
    def _overlap(self) -> int:
        return round_up(2 * self.halo_px, self.multiple_px)

    def _count(self, length: Any, longest: Any) -> Any:  # noqa: ANN401  (numbers, or arrays)
        room = np.maximum(longest - self._overlap, 1)
        return np.where(length <= longest, 1, _divide_up(length - self._overlap, room))

    def _shorten(self, length: Any, count: Any) -> Any:  # noqa: ANN401
        """Return the length of so many windows that show no more than they must."""
        return np.maximum(_divide_up(length - self._overlap, count), 1) + self._overlap

    def _widen(self, first: int, last: int) -> tuple[int, int]:
        """Return what windows show of an axis, from multiple to multiple."""
        return first // self.multiple_px * self.multiple_px, round_up(last, self.multiple_px)

    def _plan_axis(
        self,
        side: int,
        part: tuple[int, int],
        seen: tuple[int, int],
        length: int,
        last_length: int | None = None,
    ) -> list[Span]:
        """Plan the windows of a length whose cores divide `part`; together they show `seen`.

        last_length: of the last one; None: the same.
        """
        (start, end), (first, last) = part, seen
        padded = round_up(side, self.multiple_px)
        if length >= padded:
            return [Span(start, end - start, 0, padded)]
        others = int(self._count(last - first, length)) - 1
        lengths = [*[length] * others, last_length or length]
        starts = [
            min(first + at * (length - self._overlap), padded - own)
            for at, own in enumerate(lengths)
        ]
        # Neighbours part in the middle of what they share: both keep half of it as halo.
        cuts = [(at + before + length) // 2 for before, at in pairwise(starts)]
        edges = [start, *(min(max(start, cut), end) for cut in cuts), end]
        return [
            Span(edge, after - edge, at, own)
            for (edge, after), at, own in zip(pairwise(edges), starts, lengths, strict=True)
            if after > edge
        ]

    def _usable_step(self, least_px: int) -> int:
        """Return the step of window lengths: the multiple where a longer one leaves no core."""
        step = round_up(least_px, self.multiple_px)
        longest = self.window_px // step * step
        return (
            self.multiple_px if longest < least_window_px(self.halo_px, self.multiple_px) else step
        )


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)
