"""Lay bands around what of an image is not flat, each as wide as it must be.

Where a network keeps colours, every layer is zero over flat cells. So the sides of a band may lie
elsewhere than those of the one above it, if all beyond them is flat: what the band above did not
keep there is then known to be zero, and no halo is needed.

The rows that bands end at are found from the top: which bands above a row cost least does not
depend on those below it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled.upscale.band_plan import BandSizes
from upscaled.upscale.cover import Cells
from upscaled.upscale.region import Region
from upscaled.upscale.tile import Tile
from upscaled.upscale.tiles import Tiling
from upscaled_models.backends.base import round_up

_ROWS_PX: Final = 16
"""Bands end at multiples of so many rows below the first: every pair of ends is priced."""

_PRICE_OF_SHAPE: Final = 2
"""Price of a band of a shape of its own, in prices of windows: it needs kernels of its own."""


def follow_content(
    not_flat: Cells, cell_px: int, size_px: tuple[int, int], tiling: Tiling
) -> list[Tile] | None:
    """Return tiles that hold all cells that are not flat, in bands as wide as these are.

    size_px: height and width of the image. None where the tiling has no such bands.
    """
    bands, used = tiling.bands, np.flatnonzero(not_flat.any(axis=1))
    if bands is None or bands.reach_px or not used.size:
        return None
    tiles: list[Tile] = []
    for rows in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1):
        run = _Run.of(not_flat[rows[0] : rows[-1] + 1], int(rows[0]), cell_px, size_px, tiling)
        found = run.plan(bands, tiling.window_price_px * _PRICE_OF_SHAPE)
        if found is None:
            return None
        tiles += found
    return tiles


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """Neighbouring rows of cells of which each has content, with the sides of that content.

    top_px, bottom_px: of the image, padded. lefts, rights: where the content of each row begins and
    ends, at multiples of `step_px`. size_px: height and width of the image.
    """

    top_px: int
    bottom_px: int
    lefts: NDArray[np.int64]
    rights: NDArray[np.int64]
    cell_px: int
    step_px: int
    size_px: tuple[int, int]

    @classmethod
    def of(
        cls, cells: Cells, first_row: int, cell_px: int, size_px: tuple[int, int], tiling: Tiling
    ) -> "_Run":
        height_px, width_px = (round_up(side, tiling.multiple_px) for side in size_px)
        step = tiling.step_of_parts_px
        firsts = cells.argmax(axis=1) * cell_px
        ends = (cells.shape[1] - cells[:, ::-1].argmax(axis=1)) * cell_px
        top_px = first_row * cell_px
        return cls(
            top_px,
            min(height_px, top_px + len(cells) * cell_px),
            firsts // step * step,
            np.minimum(-(-ends // step) * step, width_px),
            cell_px,
            step,
            size_px,
        )

    def plan(self, bands: BandSizes, price_px: int) -> list[Tile] | None:
        """Return the tiles that cost least; None where no bands are high and low enough."""
        height_px = self.bottom_px - self.top_px
        left, right = self._find_sides(0, height_px)
        lowest_px = round_up(self.size_px[0], bands.multiple_px) - self.top_px
        usual_px = min(round_up(height_px, self.step_px), lowest_px)
        if usual_px * (right - left) <= bands.most_px:
            whole = Region(self.top_px, left, usual_px, right - left)
            core = Region(self.top_px, left, height_px, right - left)
            return [Tile(self._clip(core), whole)]
        ends = self._find_ends(bands, price_px)
        if ends is None:
            return None
        tiles = []
        for rows in bands.cut([self.top_px + end for end in ends]):
            needed = rows.own[0] - bands.radius_px, rows.own[1]  # its own, and what it goes on with
            sides = self._find_sides(*(row - self.top_px for row in needed))
            made, window = (
                Region(first, sides[0], last - first, sides[1] - sides[0])
                for first, last in (rows.made, rows.window)
            )
            tiles.append(Tile(self._clip(made), window, rows))
        return tiles

    def _find_ends(self, bands: BandSizes, price_px: int) -> list[int] | None:
        """Return the rows, from the top, at which bands end that cost least together."""
        height_px = self.bottom_px - self.top_px
        ends = np.append(np.arange(0, height_px, _ROWS_PX), height_px)
        costs, before = np.full(len(ends), np.inf), np.zeros(len(ends), np.int64)
        costs[0] = 0
        for at in range(len(ends) - 1):
            totals = costs[at] + self._price(ends, at, bands, price_px)
            is_better = totals < costs[at + 1 :]
            costs[at + 1 :][is_better] = totals[is_better]
            before[at + 1 :][is_better] = at
        if np.isinf(costs[-1]):
            return None
        found, at = [height_px], len(ends) - 1
        while at:
            at = int(before[at])
            found.append(int(ends[at]))
        return found[::-1]

    def _price(
        self, ends: NDArray[np.int64], at: int, bands: BandSizes, price_px: int
    ) -> NDArray[np.float64]:
        """Return the prices of the bands from `ends[at]` to each later end; else infinity."""
        first_row = max(0, int(ends[at]) - bands.radius_px) // self.cell_px
        last_rows = -(-ends[at + 1 :] // self.cell_px) - 1 - first_row
        lefts = np.minimum.accumulate(self.lefts[first_row:])[last_rows]
        rights = np.maximum.accumulate(self.rights[first_row:])[last_rows]
        heights = ends[at + 1 :] - ends[at]
        least = np.full(len(heights), bands.least_px if at else bands.first_px)
        least[-1] = bands.last_px if at else heights[-1] + 1  # one band alone is none
        areas = heights * (rights - lefts)
        is_possible = (heights >= least) & (areas <= bands.usual_px)
        return np.where(is_possible, areas + price_px, np.inf)

    def _find_sides(self, first: int, last: int) -> tuple[int, int]:
        """Return where the content of some rows begins and ends; they count from the top."""
        rows = slice(max(0, first) // self.cell_px, -(-last // self.cell_px))
        return int(self.lefts[rows].min()), int(self.rights[rows].max())

    def _clip(self, region: Region) -> Region:
        """Return what of a region lies in the image: windows may be padded."""
        height, width = self.size_px
        bottom, right = min(region.bottom, height), min(region.right, width)
        return Region(region.top, region.left, bottom - region.top, right - region.left)
