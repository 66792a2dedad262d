"""Restore the mean colour of fine patterns, which networks change.

A network that keeps flat colours exactly still changes the mean of what alternates from pixel to
pixel: dither, hatching, gingham, screen tones, scan lines. Its strokes overshoot, and what would
lie beyond black or white is cut off. So the result is averaged down to the source's size and
compared with the source:

    drift    source minus the averaged result, in levels of 255
    gate     0 where the drift, averaged over some 8 px, is at most `_TOLERANCE_LEVELS`, 1 from
             twice that on: photographs (0.1 to 0.2 levels) and single strokes are left alone
    wanted   the drift averaged over some 4 px, times the gate
    result   moved towards white by wanted / (mean distance to white), or towards black by
             wanted / (mean level): at most as far as these, so nothing is cut off again

246 patterns (18 masks in 10 pairs of colours, inverted ones, dithered ramps, photographs under scan
lines), mean over blocks of 8 px of |result - source| in levels; and Set14 / twelve drawn pages,
dB of Y-PSNR and acutance against the truth:

                       patterns over 4   worst   Set14 clean      Set14 jpeg       pages clean
    x2 without               87          37.3    32.576 / 0.751   29.078 / 0.611   29.916 / 0.921
    x2 with                   0           3.6    32.577 / 0.751   29.079 / 0.611   29.922 / 0.918
    x4 without              138          49.3    27.756 / 0.557   25.412 / 0.451   23.211 / 0.667
    x4 with                   2           5.3    27.756 / 0.557   25.413 / 0.451   23.222 / 0.662

The two left are lines 3 px apart, which no block of 8 px averages evenly; over 24 px they are
under 4 too. Adding the drift instead of moving by a share of that distance left 24 over 4 at x4,
the worst 18.5.

It works on rows of the finished canvas, not on a network's window: it needs no halo, and its
result does not depend on how the image was tiled. What alpha hides repeats the source there, so it
has no drift, and no visible pixel depends on it.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.image.pixels import Pixels
from upscaled.upscale.region import Region
from upscaled_models.backends.base import round_up

REACH_PX: Final = 8
"""Reach of a corrected pixel, in source pixels: 7 by the gate, 1 by the interpolation."""

_TOLERANCE_LEVELS: Final = 2.5
_GATE_SIDE_PX: Final = 8
_GATE_ANCHORS: Final = (_GATE_SIDE_PX // 2 - 1, _GATE_SIDE_PX // 2)
# A triangle of 7: zero at the frequencies of patterns that repeat every 2 and 4 px. Its weights are
# dyadic, so float32 sums are exact and do not depend on where the rows begin.
_TAPS: Final = (0.0625, 0.125, 0.1875, 0.25, 0.1875, 0.125, 0.0625)
_BLOCK_ROWS_PX: Final = 32
_BLOCK_COLUMNS_PX: Final = 128


@dataclass(slots=True)
class PatternCorrection:
    """Correction of one canvas, in bands of rows as they become complete.

    source: `[H, W, 3]`, uint8 or uint16. canvas: `[H * gain, W * gain, 3]` of the same type, which
    is filled by others and corrected in place; where `add` never comes it repeats the source.
    threads: correct blocks of rows at once; None: the caller's thread does it all.
    """

    source: Pixels
    canvas: Pixels
    threads: Executor | None = None
    _averaged: Pixels = field(init=False)
    _done_rows: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._averaged = self.source.copy()

    def add(
        self,
        region: Region,
        averaged: Pixels | None = None,
        is_seen: NDArray[np.bool_] | None = None,
    ) -> None:
        """Record a region of the source whose part of the canvas has been filled.

        Args:
            averaged: that part averaged down to the region's size, where the caller has it.
            is_seen: where of the source, `[H, W]`, the canvas has what was averaged, and not the
                source repeated; None: everywhere.
        """
        if averaged is None:
            filled, size = (
                region.scaled(self._gain).read(self.canvas),
                (region.width, region.height),
            )
            averaged = np.asarray(
                cv2.resize(filled, size, interpolation=cv2.INTER_AREA), filled.dtype
            )
        if is_seen is None:
            region.write(self._averaged, averaged)
        else:
            mask = region.read(is_seen).view(np.uint8)
            cv2.copyTo(averaged, mask, region.read(self._averaged))

    def advance(self, filled_rows: int) -> int:
        """Correct the rows whose neighbourhood is filled, and return how many rows are final.

        Both numbers count rows of the source from the top: those whose canvas is filled, and those
        whose canvas is final.
        """
        height = self.source.shape[0]
        end = height if filled_rows >= height else max(self._done_rows, filled_rows - REACH_PX)
        tops = range(self._done_rows, end, _BLOCK_ROWS_PX)
        bottoms = [min(end, top + _BLOCK_ROWS_PX) for top in tops]
        run = map if self.threads is None else self.threads.map
        for _ in run(self._correct, tops, bottoms):
            pass  # raises what a block raised
        self._done_rows = end
        return end

    @property
    def _gain(self) -> int:
        return int(self.canvas.shape[0] // self.source.shape[0])

    def _correct(self, top: int, bottom: int) -> None:
        seen = slice(max(0, top - REACH_PX), bottom + REACH_PX)
        columns = self._find_drift(seen)
        if columns is None:
            return
        moves = _find_moves(self.source[seen, columns], self._averaged[seen, columns])
        if moves is None:
            return
        for left in range(columns.start, columns.stop, _BLOCK_COLUMNS_PX):
            width = min(_BLOCK_COLUMNS_PX, columns.stop - left)
            block = Region(top, left, bottom - top, width)
            _move(self.canvas, block, moves, (seen.start, columns.start), self._gain)

    def _find_drift(self, rows: slice) -> slice | None:
        """Return the columns of blocks within reach of drift in these rows; None: there is none.

        Flat areas have none: those around an object need no more than this look.
        """
        drift = cv2.absdiff(self.source[rows], self._averaged[rows])
        values = np.flatnonzero(drift.reshape(len(drift), -1).max(axis=0))
        if not values.size:
            return None
        width = drift.shape[1]
        first, last = int(values[0]) // 3, int(values[-1]) // 3 + 1
        left = max(0, first - 2 * REACH_PX) // _BLOCK_COLUMNS_PX * _BLOCK_COLUMNS_PX
        return slice(left, min(width, round_up(last + 2 * REACH_PX, _BLOCK_COLUMNS_PX)))


def _find_moves(source: Pixels, averaged: Pixels) -> NDArray[np.float32] | None:
    """Return how far each pixel moves: `[h, w, 3]`, 1 all the way to white, -1 to black.

    None where no pixel moves, as in most rows of photographs. Sums over a box are means of 64, and
    where none is beyond the tolerance, their own means, which open the gate, are not either.
    """
    peak = np.iinfo(source.dtype).max
    tolerance = _TOLERANCE_LEVELS * peak / 255
    depth = cv2.CV_16S if source.dtype == np.uint8 else cv2.CV_32S  # what a sum of 64 drifts fits
    drift = cv2.subtract(source, averaged, dtype=depth)
    summed = _sum_boxes(drift, depth, _GATE_ANCHORS[0])
    if cv2.norm(summed, cv2.NORM_INF) <= tolerance * _GATE_SIDE_PX**2:
        return None
    wide = _sum_boxes(summed, cv2.CV_32S, _GATE_ANCHORS[1]) / np.float32(_GATE_SIDE_PX**4)
    gate = np.abs(np.asarray(wide, np.float32)) / np.float32(tolerance) - 1
    if gate.max() <= 0:
        return None
    wanted = _average(drift.astype(np.float32)) * np.clip(gate, 0, 1)
    level = _average(averaged.astype(np.float32))
    room = np.maximum(np.where(wanted > 0, peak - level, level), 1)
    return np.asarray(np.clip(wanted / room, -1, 1), np.float32)


def _average(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    taps = np.array(_TAPS, np.float32)
    averaged = cv2.sepFilter2D(pixels, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(averaged, np.float32)


def _sum_boxes(drift: NDArray[Any], depth: int, anchor: int) -> NDArray[Any]:
    """Sum over a box around each pixel, which begins `anchor` pixels before it.

    A triangle of 15 is such sums of such sums: in whole numbers, as boxes sum on the run.
    """
    return np.asarray(
        cv2.boxFilter(
            drift,
            depth,
            (_GATE_SIDE_PX, _GATE_SIDE_PX),
            anchor=(anchor, anchor),
            normalize=False,
            borderType=cv2.BORDER_REPLICATE,
        )
    )


def _move(
    canvas: Pixels, block: Region, moves: NDArray[np.float32], first: tuple[int, int], gain: int
) -> None:
    """Move a block's canvas; `moves` begins at the source's row and column `first`."""
    row, column = first
    top, left = max(row, block.top - 1), max(column, block.left - 1)
    around = moves[top - row : block.bottom + 1 - row, left - column : block.right + 1 - column]
    if not around.any():
        return
    peak = np.iinfo(canvas.dtype).max
    kept = np.rint((1 - np.abs(around)) * peak).astype(canvas.dtype)
    added = np.rint(np.maximum(around, 0) * peak).astype(canvas.dtype)
    size = (around.shape[1] * gain, around.shape[0] * gain)
    inner = block.within(Region(top, left, 0, 0)).scaled(gain)
    pixels = block.scaled(gain).read(canvas)
    factors = inner.read(cv2.resize(kept, size, interpolation=cv2.INTER_LINEAR))
    summands = inner.read(cv2.resize(added, size, interpolation=cv2.INTER_LINEAR))
    pixels[:] = cv2.add(cv2.multiply(pixels, factors, scale=1 / peak), summands)
