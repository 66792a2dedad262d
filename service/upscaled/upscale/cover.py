"""Cover the content of an image with rectangles whose windows cost least.

The rectangle around all content is cut in two by the row or column that saves most, and so are
both parts, as long as that saves more than a window's price. What is round has no cut that saves
alone. So the same is done with the bands of rows, and of columns, that cost least together, and
the cheapest of the three is chosen: in windows of 512 px an ellipse over two fifths of a square
takes 0.54 of what the square takes, where cuts in two alone left 0.60; and 0.48 where windows may
end in flat areas, have any length that is a multiple of 8 px, and be long and narrow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from upscaled.upscale.tiles import Tiling

Cells = NDArray[np.bool_]

_MOST_BANDS: Final = 200
"""Bands end at so many rows of cells at most: every pair of ends is priced. Twice as many take
9 ms more for 1500 rows of pixels, and save 0.1 % of the windows of a round object."""


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """Rectangle of cells, ends excluded; or many of them, in arrays."""

    top: Any
    bottom: Any
    left: Any
    right: Any

    def moved(self, to: "Box") -> "Box":
        """Return the rectangle, its position counted from where that of `to` is."""
        down, across = to.top, to.left
        return Box(self.top + down, self.bottom + down, self.left + across, self.right + across)

    def turned(self) -> "Box":
        return Box(self.left, self.right, self.top, self.bottom)

    def at(self, index: int) -> "Box":
        sides = (self.top, self.bottom, self.left, self.right)
        return Box(*(int(side[index]) for side in sides))


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of rectangles: the pixels of the windows that they take, and of their number.

    size_px: height and width of the image. cell_px: side of its cells. not_flat: sums of the cells
    that are not flat above and left of each, `[rows + 1, columns + 1]`; None: none counts as flat.
    is_turned: rows of the rectangles are columns of the image. by_size: prices by height and width
    of what windows must show, in steps of their lengths; None: each is found when it is asked for.
    """

    size_px: tuple[int, int]
    cell_px: int
    tiling: Tiling
    by_size: NDArray[np.int64] | None
    not_flat: NDArray[np.int32] | None = None
    is_turned: bool = False

    @classmethod
    def of_image(
        cls,
        size_px: tuple[int, int],
        cell_px: int,
        tiling: Tiling,
        not_flat: NDArray[np.int32] | None,
    ) -> "Prices":
        """Make the prices for an image.

        Where windows may be of many shapes, all sizes are priced at once, in steps: a cover asks
        for ten times as many.
        """
        by_size = _price_sizes(tiling, size_px) if tiling.stretch > 1 else None
        return cls(size_px, cell_px, tiling, by_size, not_flat)

    def of(self, box: Box) -> Any:  # noqa: ANN401  (a number, or an array of them)
        seen = self.add_halo(box.turned() if self.is_turned else box)
        height, width = seen.bottom - seen.top, seen.right - seen.left
        if self.by_size is None:
            return self.tiling.divide(height, width).price
        step = self.tiling.step_of_parts_px
        rows, columns = (-(-np.maximum(length, 0) // step) for length in (height, width))
        return self.by_size[rows, columns]

    def add_halo(self, box: Box) -> Box:
        """Return what the windows for a rectangle must show, in pixels: with a halo around it.

        None at a side beyond which the next cells are flat. Any difference within a network's
        radius of a pixel inside is then inside too, or beyond another side: those cells would not
        be flat otherwise. And no path from it to that pixel leaves by the flat side.
        """
        halo_px, cell_px = self.tiling.halo_px, self.cell_px
        rows, columns = (-(-side_px // cell_px) for side_px in self.size_px)
        above = Box(np.maximum(box.top - 1, 0), box.top, box.left, box.right)
        below = Box(box.bottom, np.minimum(box.bottom + 1, rows), box.left, box.right)
        before = Box(box.top, box.bottom, np.maximum(box.left - 1, 0), box.left)
        after = Box(box.top, box.bottom, box.right, np.minimum(box.right + 1, columns))
        return Box(
            np.maximum(box.top * cell_px - halo_px * self._has_content(above), 0),
            np.minimum(box.bottom * cell_px + halo_px * self._has_content(below), self.size_px[0]),
            np.maximum(box.left * cell_px - halo_px * self._has_content(before), 0),
            np.minimum(box.right * cell_px + halo_px * self._has_content(after), self.size_px[1]),
        )

    def _has_content(self, box: Box) -> Any:  # noqa: ANN401
        """Return whether a rectangle has a cell that is not flat."""
        if self.not_flat is None:
            return True
        sums, columns = self.not_flat.ravel(), self.not_flat.shape[1]
        top, bottom = box.top * columns, box.bottom * columns
        above = sums[top + box.right] - sums[top + box.left]
        return sums[bottom + box.right] - sums[bottom + box.left] != above


@lru_cache(maxsize=4)
def _price_sizes(tiling: Tiling, size_px: tuple[int, int]) -> NDArray[np.int64]:
    """Price every size up to that of an image, `[rows, columns]` in steps of window lengths."""
    step = tiling.step_of_parts_px
    height, width = (np.arange(-(-side_px // step) + 1) * step for side_px in size_px)
    return np.asarray(tiling.divide(height[:, None], width).price)


def cover(cells: Cells, prices: Prices) -> list[Box]:
    """Return rectangles that hold all content: cut in two, or in bands first, as is cheapest."""
    if not cells.any():
        return []
    rows = _cut_to_bands(cells, prices)
    columns = _cut_to_bands(cells.T, replace(prices, is_turned=True))
    whole = Box(0, cells.shape[0], 0, cells.shape[1])
    starts = ([whole], rows, [band.turned() for band in columns])
    covers = [list(_halve(cells, prices, start)) for start in starts]
    return min(covers, key=lambda cover: sum(map(prices.of, cover)))


def _cut_to_bands(cells: Cells, prices: Prices) -> list[Box]:
    """Return the bands of rows that cost least together, each a rectangle around its content.

    Which bands above a row cost least does not depend on those below it: they are found once for
    each row where a band may end, from the top. `cells` has content.
    """
    used = np.flatnonzero(cells.any(axis=1))
    step = -(-(used[-1] + 1 - used[0]) // _MOST_BANDS)
    edges = np.append(np.arange(used[0], used[-1] + 1, step), used[-1] + 1)
    costs = _price_bands(np.logical_or.reduceat(cells[: edges[-1]], edges[:-1]), edges, prices)
    sums, firsts = np.zeros(len(edges)), list[int]()
    for last in range(len(edges) - 1):
        totals = sums[:-1] + costs[:, last]
        firsts.append(int(totals.argmin()))
        sums[last + 1] = totals[firsts[-1]]
    bands, end = list[Box](), len(firsts)
    while end:
        start = firsts[end - 1]
        bands.append(Box(int(edges[start]), int(edges[end]), 0, cells.shape[1]))
        end = start
    return bands


def _price_bands(strips: Cells, edges: NDArray[np.int64], prices: Prices) -> NDArray[np.float64]:
    """Return the price of each band from one strip to another, `[first, last]`; else infinity.

    Args:
        strips: the rows of cells between two neighbouring `edges` as one.
    """
    width, is_empty = strips.shape[1], ~strips.any(axis=1)
    is_band = np.triu(np.ones((len(strips),) * 2, np.bool_))
    lefts = np.where(is_empty, width, strips.argmax(axis=1))
    rights = np.where(is_empty, 0, width - strips[:, ::-1].argmax(axis=1))
    left = np.minimum.accumulate(np.where(is_band, lefts, width), axis=1)
    right = np.maximum.accumulate(np.where(is_band, rights, 0), axis=1)
    costs = prices.of(Box(edges[:-1, None], edges[1:], left, right))
    return np.where(left < right, costs, np.where(is_band, 0.0, np.inf))


def _halve(cells: Cells, prices: Prices, start: Sequence[Box]) -> Iterator[Box]:
    """Yield the rectangles of `start` around their content, cut in two as long as that saves."""
    waiting = list(start)
    while waiting:
        box = waiting.pop()
        inside = cells[box.top : box.bottom, box.left : box.right]
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            continue
        edges = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        content = Box(*map(int, edges))
        inside = inside[content.top : content.bottom, content.left : content.right]
        box = content.moved(box)
        least, parts = prices.of(box), list[Box]()
        across, down = _cut(inside), (each.turned() for each in _cut(inside.T))
        for first, second in (across, down):
            first, second = first.moved(box), second.moved(box)
            sums = prices.of(first) + prices.of(second)
            if sums.size and sums.min() < least:
                at = int(sums.argmin())
                least, parts = sums[at], [first.at(at), second.at(at)]
        waiting += parts
        if not parts:
            yield box


def _cut(cells: Cells) -> tuple[Box, Box]:
    """Return the boxes around all content above and below each row but the first."""
    above, flipped = _bound_rows(cells), _bound_rows(cells[::-1])
    count = len(cells)
    below = Box(
        count - flipped.bottom[::-1],
        count - flipped.top[::-1],
        flipped.left[::-1],
        flipped.right[::-1],
    )
    return above, below


def _bound_rows(cells: Cells) -> Box:
    """Return the boxes around the content of the first row, of the first two, and so on."""
    cells = np.ascontiguousarray(cells[:-1])
    count, width = cells.shape
    is_used = cells.any(axis=1)
    ends = np.where(is_used, np.arange(1, count + 1), 0)
    firsts = np.where(is_used, cells.argmax(axis=1), width)
    lasts = np.where(is_used, width - cells[:, ::-1].argmax(axis=1), 0)
    return Box(
        np.zeros(count, np.int64),
        np.maximum.accumulate(ends),
        np.minimum.accumulate(firsts),
        np.maximum.accumulate(lasts),
    )
