"""Find the cells of an image that a network must see, and plan windows around them alone.

A cell is a square of `CELL_PX` pixels. It is empty, and its result its own pixels repeated, where

    it is transparent   alpha is 0 in all of it, and so near around it that its result has none
    it is flat          all is of one colour, in it and as far around it as its result depends on
                        (`PostProcessing.flat_reach_px`): the network, or the colour correction
                        after it, makes just that colour of it

Every other cell has what the network makes of it, but for its hidden pixels: those of which the
result shows nothing keep the source's colour in any cell, so that no correction that follows and
no visible pixel depends on what was left out. The image alone decides which is which, never its
windows: tiled equals untiled, exactly where the halo is as wide as the network's radius.

Windows are planned for rectangles around it (the module `cover`), with sides that are multiples of
`choose_part_step_px`. An image full of content has the windows that it would have without all this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.image.pixels import Pixels
from upscaled.upscale.band_plan import BandSizes
from upscaled.upscale.content_bands import follow_content
from upscaled.upscale.cover import Box, Cells, Prices, cover
from upscaled.upscale.post_process.colour_correction import equal_pixels
from upscaled.upscale.region import Region
from upscaled.upscale.tile import Tile, count_px
from upscaled.upscale.tiles import COMPILED_WINDOW_PRICE_PX, READY_WINDOW_PRICE_PX, Tiling
from upscaled_models.backends.base import EngineInfo, Window, round_up

CELL_PX: Final = 4

_ROWS_AT_ONCE: Final = 16
_PART_LENGTHS: Final = 4
_MANY_WEIGHTS: Final = 400_000
_FINE_STEP_PX: Final = 8

_ALPHA_REACH_PX: Final = 2
"""Reach of `upscale_alpha`: 1 by the range of its neighbours, 1 by the interpolation."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """Content of an image of `height_px` x `width_px`: `cells[row, column]`, of `cell_px` each.

    is_flat: likewise, of one colour as far as the result depends on. is_seen: pixels `[H, W]` of
    which alpha lets the result show something; None: all of them.
    """

    cells: Cells
    is_flat: Cells
    height_px: int
    width_px: int
    is_seen: Cells | None = None
    cell_px: int = CELL_PX

    @classmethod
    def of(cls, rgb: Pixels, alpha: Pixels | None, flat_reach_px: int | None) -> "Content":
        """Find the content of `[H, W, 3]` pixels as the network sees them, in some ms.

        alpha: `[H, W]`; None: the image is opaque. flat_reach_px: how far around a flat cell all
        must be of its colour; None: no cell is flat, as the network makes another colour of it.
        """
        height_px, width_px = rgb.shape[:2]
        is_flat = np.zeros((-(-height_px // CELL_PX), -(-width_px // CELL_PX)), np.bool_)
        if flat_reach_px is not None and _may_be_flat(rgb, flat_reach_px):
            around = _square(flat_reach_px, CELL_PX)
            darkest = cv2.erode(_pool(rgb, cv2.MORPH_ERODE), around)
            lightest = cv2.dilate(_pool(rgb, cv2.MORPH_DILATE), around)
            is_flat = equal_pixels(darkest, lightest)
        is_seen = None if alpha is None else cv2.dilate(alpha, _square(_ALPHA_REACH_PX, 1)) > 0
        if is_seen is None or is_seen.all():
            return cls(~is_flat, is_flat, height_px, width_px)
        cells = ~is_flat & (_pool(is_seen.view(np.uint8), cv2.MORPH_DILATE) > 0)
        return cls(cells, is_flat, height_px, width_px, is_seen)

    @property
    def px(self) -> int:
        return self.height_px * self.width_px

    def enlarged(self, gain: int, flat_reach_px: int | None) -> "Content":
        """Return the content of the result, for images that run through the network twice."""
        cell_px = self.cell_px * gain
        around = _square(flat_reach_px or 0, cell_px)
        cells = cv2.dilate(self.cells.view(np.uint8), around).view(np.bool_)
        is_flat = cv2.erode(self.is_flat.view(np.uint8), around).view(np.bool_)
        size = (self.height_px * gain, self.width_px * gain)
        is_seen = None if self.is_seen is None else _repeat(self.is_seen, gain)
        return Content(cells, is_flat, *size, is_seen, cell_px)

    def plan(self, tiling: Tiling) -> tuple[Tile, ...]:
        """Return the tiles of all content, from the top down; none where all is empty."""
        size = (self.height_px, self.width_px)
        whole = tiling.plan(*size)
        if self.cells.all():
            return whole
        not_flat = None
        if not tiling.needs_flat_halo and self.is_flat.any():
            not_flat = np.asarray(cv2.integral((~self.is_flat).view(np.uint8)), np.int32)
        prices = Prices.of_image(size, self.cell_px, tiling, not_flat)
        tiles = [
            tile
            for part in cover(self.cells, prices)
            for tile in tiling.plan(*size, self._region(part), _region(prices.add_halo(part)))
        ]
        plans = [tiles, list(whole)]
        if not_flat is not None:
            following = follow_content(~self.is_flat, self.cell_px, size, tiling)
            plans += [] if following is None else [following]
        cheapest = min(plans, key=lambda plan: _price(plan, tiling))
        return tuple(sorted(cheapest, key=lambda tile: (tile.core.top, tile.core.left)))

    def make_canvas(self, rgb: Pixels, gain: int, tiles: Sequence[Tile]) -> "Canvas":
        """Make the canvas of the result of `[H, W, 3]` pixels for the tiles that `write` gets."""
        written_px = sum(tile.core.height * tile.core.width for tile in tiles)
        is_all_written = self.is_seen is None and written_px == self.height_px * self.width_px
        pixels = np.empty((self.height_px * gain, self.width_px * gain, 3), rgb.dtype)
        return Canvas(pixels, None if is_all_written else rgb)

    def write(self, canvas: "Canvas", core: Region, pixels: Window, gain: int) -> None:
        """Write the network's result for a region to the canvas, but for hidden pixels.

        Regions come from the top down, by their first rows.
        """
        canvas.fill_rows(core.bottom)
        is_seen = None if self.is_seen is None else core.read(self.is_seen)
        target = core.scaled(gain)
        if is_seen is None or is_seen.all():
            target.write(canvas.pixels, pixels)
        else:
            mask = _repeat(is_seen, gain).view(np.uint8)
            cv2.copyTo(pixels, mask, target.read(canvas.pixels))

    def _region(self, box: Box) -> Region:
        bottom = min(self.height_px, box.bottom * self.cell_px)
        right = min(self.width_px, box.right * self.cell_px)
        return _region(Box(box.top * self.cell_px, bottom, box.left * self.cell_px, right))


@dataclass(slots=True, eq=False)
class Canvas:
    """Canvas whose rows are filled with the source's pixels shortly before windows write to them.

    So it is filled while the network computes. Filling 36 megapixels at once, before the first
    window, took 1 to 3 % of the network's time in 8 bits.

    pixels: `[H * gain, W * gain, 3]`, uint8 or uint16. source: `[H, W, 3]` of the same type; None:
    windows write every pixel.
    """

    pixels: Pixels
    source: Pixels | None
    _filled_rows: int = 0

    def fill_rows(self, rows: int) -> None:
        """Fill the canvas down to row `rows` of the source; rows that are filled already stay."""
        if self.source is None or rows <= self._filled_rows:
            return
        gain = self.pixels.shape[0] // self.source.shape[0]
        for top in range(self._filled_rows, rows, _ROWS_AT_ONCE):
            part = self.source[top : min(top + _ROWS_AT_ONCE, rows)]
            count, width = part.shape[:2]
            # Rows that are wide already are copied in a third of the time of a resize both ways.
            wide = cv2.resize(part, (width * gain, count), interpolation=cv2.INTER_NEAREST)
            target = self.pixels[top * gain : (top + count) * gain]
            target.reshape(count, gain, -1)[:] = wide.reshape(count, 1, -1)
        self._filled_rows = rows


def make_tiling(
    info: EngineInfo,
    halo_px: int,
    window_px: int,
    *,
    needs_flat_halo: bool = True,
    in_bands: bool = True,
) -> Tiling:
    """Return the sizes of an engine's windows; for `needs_flat_halo` see `Tiling`.

    in_bands: tall windows may go through it in bands, where it computes these.
    """
    is_ready = info.takes_new_shapes
    in_bands = in_bands and info.computes_bands
    return Tiling(
        window_px=window_px,
        halo_px=halo_px,
        multiple_px=info.spec.multiple_px,
        shape_step_px=info.shape_step_px,
        part_step_px=choose_part_step_px(info, window_px),
        stretch=2 if is_ready else 1,
        window_price_px=READY_WINDOW_PRICE_PX if is_ready else COMPILED_WINDOW_PRICE_PX,
        needs_flat_halo=needs_flat_halo,
        ends_short=is_ready,
        bands=BandSizes.of(info.spec, halo_px, window_px) if in_bands else None,
    )


def choose_part_step_px(info: EngineInfo, window_px: int) -> int:
    """Choose the step of window lengths for parts of an image.

    Where a graph is compiled for each new shape, that takes a small network longer than the pixels
    that a finer step saves, 5 to 10 %; larger networks take longer for those pixels.
    """
    if info.takes_new_shapes:
        return round_up(_FINE_STEP_PX, info.spec.multiple_px)
    weights = info.spec.size_bytes * 8 / info.spec.bits
    step_px = 1 if weights >= _MANY_WEIGHTS else window_px // _PART_LENGTHS
    return round_up(step_px, info.shape_step_px)


def _region(box: Box) -> Region:
    """Return a rectangle of pixels."""
    return Region(*map(int, (box.top, box.left, box.bottom - box.top, box.right - box.left)))


def _may_be_flat(rgb: Pixels, reach_px: int) -> bool:
    """Return whether any cell may be flat, by one pixel of each: few photographs have any.

    It takes a sixth of the time that all pixels take.
    """
    sample = np.ascontiguousarray(rgb[::CELL_PX, ::CELL_PX])
    around = _square(reach_px, CELL_PX)
    return bool(equal_pixels(cv2.erode(sample, around), cv2.dilate(sample, around)).any())


def _pool(pixels: Pixels, operation: int) -> Pixels:
    """Return the darkest or lightest of each cell: `cv2.MORPH_ERODE` or `MORPH_DILATE`."""
    inside = np.ones((CELL_PX, CELL_PX), np.uint8)
    pooled = cv2.morphologyEx(pixels, operation, inside, anchor=(0, 0))
    return np.ascontiguousarray(pooled[::CELL_PX, ::CELL_PX])


def _repeat(mask: Cells, times: int) -> Cells:
    return mask.repeat(times, axis=1).repeat(times, axis=0)  # whole rows are copied faster


def _square(reach_px: int, cell_px: int) -> NDArray[np.uint8]:
    """Return the kernel of all cells that are within reach of one."""
    return np.ones((2 * -(-reach_px // cell_px) + 1,) * 2, np.uint8)


def _price(tiles: Sequence[Tile], tiling: Tiling) -> int:
    return count_px(tiles) + tiling.window_price_px * len(tiles)
