"""Steps that turn a network's result for a window into the image's pixels.

One thread would be slow at them, so where there are more they work on strips of rows at once.
Colour correction and tempering give the same result to the last bit; the sanity check compares
blocks that lie elsewhere where a window's height is no multiple of `BLOCK_PX`.

The sanity check compares a result block by block with its source: a device that failed leaves
black, garbage or another image's pixels, whose mean colour is another one. Networks shift means
too, the more the harsher the picture: official ones by up to 13 levels where it is flat, by 20 in
photographs, by 86 in a checkerboard of pure red and blue. So a block may differ by a fixed share,
twice that where the picture is so small that it is all border, and by a share of its source's
contrast.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.config import Settings
from upscaled.image.pixels import Pixels
from upscaled.upscale.post_process.colour_correction import (
    CORRECTION_REACH_PX,
    FLAT_PX,
    correct_colours,
    keep_flat,
)
from upscaled.upscale.post_process.tempering import TEMPER_REACH_PX, Tempering, temper
from upscaled_models.backends.base import Window, round_up
from upscaled_models.registry import ModelSpec

BLOCK_PX: Final = 32
"""Side of the compared blocks, in source pixels."""

_FIXED_SHARE: Final = 24 / 255
_SHARE_OF_CONTRAST: Final = 0.75
_LEAST_SHARE_FOR_BLACK: Final = 16 / 255
_LEVELS_BY_ROUNDING: Final = 2
_ROWS_AT_ONCE: Final = 64

STRIPS_PER_WINDOW: Final = 8
"""Strips of a window that are post-processed at once, where cores are free for it."""

LEAST_ROWS_PX: Final = 2 * BLOCK_PX
"""Fewest source rows of a strip: below, passing it to a thread costs more than it saves."""


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """The steps for one image; by default none.

    checks: a window whose result is not plausible is computed once more in float32.
    tempering: how the result is mixed with a faithful network's, whose result is used unmixed where
        the source is flat. corrects_colours: the result gets the source's colours, unless it is
        tempered. corrects_patterns: fine patterns get their mean colour back, on the finished rows.
    threads: run the strips of a window; None: the caller's thread does it all.
    """

    checks: bool = False
    tempering: Tempering | None = None
    corrects_colours: bool = False
    corrects_patterns: bool = False
    threads: Executor | None = None

    def halo_px(self, specs: Iterable[ModelSpec], gain: int) -> int:
        """Return the source pixels that these models, enlarging by `gain`, need around a core."""
        return max(spec.halo_px for spec in specs) + self.reach_px(gain)

    def reach_px(self, gain: int) -> int:
        """Return how many source pixels around a core the steps read."""
        if self.tempering is not None:
            return max(FLAT_PX, -(-TEMPER_REACH_PX // gain))
        return CORRECTION_REACH_PX if self.corrects_colours else 0

    def flat_reach_px(self, spec: ModelSpec, faithful: ModelSpec | None) -> int | None:
        """Return how far around a pixel its result depends on, where all that is of one colour.

        The result is then that colour, exactly. None where no step ensures that. `faithful` is the
        model that the result is tempered with.
        """
        if faithful is not None:
            return max(FLAT_PX, faithful.radius_px) if faithful.keeps_colour else None
        if spec.keeps_colour:
            return spec.radius_px
        return CORRECTION_REACH_PX if self.corrects_colours else None

    def average_plausible(self, source: Window, result: Window) -> Window | None:
        """Return a result averaged down to its source's size, if it can be believed; else None.

        It can where every strip passes the sanity check.

        Args:
            source: what the network saw, `[h, w, 3]`, uint8 or uint16.
            result: what it made of it, of the same type, `[h * gain, w * gain, 3]`.
        """
        gain, rest = divmod(result.shape[0], source.shape[0])
        spans = _cut(source.shape[0])
        if self.threads is None or rest or len(spans) == 1:
            return average_plausible(source, result)
        averaged = np.empty_like(source)

        def average_strip(span: tuple[int, int]) -> bool:
            start, end = span
            strip = average_plausible(source[start:end], result[start * gain : end * gain])
            if strip is not None:
                averaged[start:end] = strip
            return strip is not None

        return averaged if all(self.threads.map(average_strip, spans)) else None

    def correct(self, source: Window, result: Window) -> Window:
        """Return a checked result with its source's colours; arguments as of `average_plausible`.

        The result as it is, where its model keeps colours or it is tempered afterwards.
        """
        if self.tempering is not None or not self.corrects_colours:
            return result
        return self._compute(source, result, CORRECTION_REACH_PX)

    def temper(self, source: Window, vivid: Window, faithful: Window) -> Window:
        """Return both networks' results mixed; the faithful one where the source is flat."""
        return keep_flat(source, self._compute(vivid, faithful, TEMPER_REACH_PX), faithful)

    def _compute(self, one: Window, other: Window, reach_px: int) -> Window:
        """Temper, or else correct, two windows, `other` a whole number of times as large as `one`.

        reach_px: how many rows of `one` around a row the step reads.
        """
        height = one.shape[0]
        gain, rest = divmod(other.shape[0], height)
        spans = _cut(height)
        if self.threads is None or rest or len(spans) == 1:
            return self._compute_strip(one, other)
        computed = np.empty_like(other)

        def compute_strip(span: tuple[int, int]) -> None:
            start, end = span
            top, bottom = max(0, start - reach_px), min(height, end + reach_px)
            strip = self._compute_strip(one[top:bottom], other[top * gain : bottom * gain])
            computed[start * gain : end * gain] = strip[(start - top) * gain : (end - top) * gain]

        for _ in self.threads.map(compute_strip, spans):
            pass  # raises what a strip raised
        return computed

    def _compute_strip(self, one: Window, other: Window) -> Window:
        if self.tempering is not None:
            return temper(one, other, self.tempering)
        return correct_colours(one, other)


NO_POST_PROCESSING: Final = PostProcessing()


def choose_post_processing(
    spec: ModelSpec,
    settings: Settings,
    tempering: Tempering | None = None,
    threads: Executor | None = None,
) -> PostProcessing:
    """Check every window; correct colours: of fine patterns, and of all else where models shift it.

    What is tempered has the faithful network's colours. The setting `colour_lock` switches both
    corrections off.
    """
    return PostProcessing(
        checks=True,
        tempering=tempering,
        corrects_colours=settings.colour_lock and not spec.keeps_colour,
        corrects_patterns=settings.colour_lock,
        threads=threads,
    )


def _cut(height: int) -> list[tuple[int, int]]:
    """Cut rows into spans of whole blocks of the sanity check, the last with what is left over."""
    rows = max(LEAST_ROWS_PX, round_up(-(-height // STRIPS_PER_WINDOW), BLOCK_PX))
    starts = range(0, max(1, height - LEAST_ROWS_PX + 1), rows)
    ends = [*starts[1:], height]
    return list(zip(starts, ends, strict=True))


def is_plausible(source: Window, result: Window) -> bool:
    """Return whether a result has its source's colours, and its size times a whole number.

    Args:
        source: what the network saw, `[h, w, 3]`, uint8 or uint16.
        result: what it made of it, of the same type.
    """
    return average_plausible(source, result) is not None


def average_plausible(source: Window, result: Window) -> Window | None:
    """Return a result averaged down to its source's size, None where it is not plausible.

    Arguments as of `is_plausible`.
    """
    if not _fits(source, result):
        return None
    size = (source.shape[1], source.shape[0])
    averaged = np.asarray(cv2.resize(result, size, interpolation=cv2.INTER_AREA), source.dtype)
    return averaged if _is_near(source, averaged) else None


def _is_near(source: Window, averaged: Window) -> bool:
    """Return whether every block of an averaged result has the colour of its source.

    Blocks surely do where every pixel does, as in most photographs, or their rounded means do:
    that takes a hundredth and a fifth of the time.
    """
    height, width = source.shape[:2]
    peak = float(np.iinfo(source.dtype).max)
    blocks = (max(1, width // BLOCK_PX), max(1, height // BLOCK_PX))
    least = _LEAST_SHARE_FOR_BLACK * peak
    if cv2.norm(source, averaged, cv2.NORM_INF) <= least:
        return True
    rounded, rounded_after = (
        cv2.resize(each, blocks, interpolation=cv2.INTER_AREA) for each in (source, averaged)
    )
    if cv2.norm(rounded, rounded_after, cv2.NORM_INF) <= least - _LEVELS_BY_ROUNDING:
        return True
    before = source.astype(np.float32)
    mean = _average(before, blocks)
    mean_after = _average(averaged.astype(np.float32), blocks)
    is_black = (mean_after.max(axis=2) == 0) & (mean.max(axis=2) > least)
    if np.any(is_black):
        return False
    apart = np.abs(mean_after - mean)
    fixed = _FIXED_SHARE * peak * (2 if min(height, width) < BLOCK_PX else 1)
    if np.all(apart <= fixed):
        return True
    contrast = np.sqrt(np.maximum(_average(np.square(before), blocks) - np.square(mean), 0))
    return bool(np.all(apart <= fixed + _SHARE_OF_CONTRAST * contrast.max(axis=2, keepdims=True)))


def _fits(source: Window, result: Window) -> bool:
    if result.dtype != source.dtype or result.ndim != 3 or result.shape[2] != source.shape[2]:
        return False
    height, width = source.shape[:2]
    gain = max(1, result.shape[0] // height)
    return bool(result.shape[:2] == (height * gain, width * gain))


def _average(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)


def is_neutral(rgb: Pixels) -> bool:
    """Return whether red, green and blue are equal in all of `[H, W, 3]`."""
    for top in range(0, rgb.shape[0], _ROWS_AT_ONCE):
        rows = rgb[top : top + _ROWS_AT_ONCE]
        if not np.array_equal(neutralise(rows), rows):
            return False
    return True


def neutralise(rgb: Pixels) -> Pixels:
    """Return each pixel's luma in all three channels, in its type; a grey is its own."""
    luma = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), rgb.dtype)
