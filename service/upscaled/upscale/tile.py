"""One tile of an image: what a network reads at once, and what is kept of its result."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from upscaled.upscale.band_plan import BandRows
from upscaled.upscale.region import Region


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, in input pixels: `core` is kept of what the network makes of `window`.

    The window may reach past the image's right or bottom edge by less than the network's
    multiple: those pixels are padded.

    band: the rows of a band of a column; None: the window goes through the network by itself.
    column: the number of that column.
    """

    core: Region
    window: Region
    band: BandRows | None = None
    column: int = 0

    @property
    def shown(self) -> Region:
        """Return what post-processing works on: the window, or that of it whose result is there."""
        return self.window if self.band is None else self._rows(*self.band.shown)

    @property
    def px(self) -> int:
        """Return the pixels that the network computes."""
        height = self.window.height
        if self.band is not None:
            height = self.band.own[1] - self.band.own[0]
        return height * self.window.width

    def _rows(self, first: int, last: int) -> Region:
        return Region(first, self.window.left, last - first, self.window.width)


def count_px(tiles: Iterable[Tile]) -> int:
    """Return the pixels of all windows: the cost of these tiles."""
    return sum(tile.px for tile in tiles)


@dataclass(frozen=True, slots=True)
class Span:
    """One axis of a tile: the starts and lengths of its core and of its window."""

    core_start: int
    core_length: int
    start: int
    length: int


def cross(row: Span, column: Span) -> Tile:
    return Tile(
        core=Region(row.core_start, column.core_start, row.core_length, column.core_length),
        window=Region(row.start, column.start, row.length, column.length),
    )


@dataclass(frozen=True, slots=True)
class PartWindows:
    """The windows of a part of an image, or of many parts, in arrays.

    price: of all of them, in pixels: their own, and `Tiling.window_price_px` for each.
    """

    height_px: Any
    width_px: Any
    price: Any

    def cheaper(self, other: "PartWindows") -> "PartWindows":
        """Return the cheaper of two ways to divide each part."""
        is_better = other.price < self.price
        pairs = zip(
            (self.height_px, self.width_px, self.price),
            (other.height_px, other.width_px, other.price),
            strict=True,
        )
        return PartWindows(*(np.where(is_better, after, before) for before, after in pairs))
