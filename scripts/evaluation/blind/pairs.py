"""Make the pairs of a blind comparison: the same crop from two upscalers, sides shuffled by a
seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scripts.evaluation.measure import Truth
from scripts.evaluation.upscalers import AnyUpscaler, run
from upscaled_models.quantise.tracks import make_small

Pixels = NDArray[np.uint8]

CROP_PX = 240
"""Side of a crop: two of them at 200 % fill a screen 960 px wide."""

_FLAT_LEVELS = 4
"""Least standard deviation of a crop's truth: flatter crops show no difference."""
_TRIES = 20


@dataclass(frozen=True)
class Pair:
    """Two crops, and the upscaler of each.

    left_px, right_px: `[h, w, 3]` uint8 RGB.
    """

    truth: str
    track: str
    left: str
    right: str
    left_px: Pixels
    right_px: Pixels


@dataclass(frozen=True)
class Comparison:
    """A comparison of two upscalers by label, over some truths and tracks."""

    upscalers: Mapping[str, AnyUpscaler]
    truths: Sequence[Truth]
    tracks: Sequence[str]
    scale: int
    seed: int
    count: int

    def __post_init__(self) -> None:
        if len(self.upscalers) != 2:
            names = ", ".join(self.upscalers) or "none"
            raise ValueError(f"a blind comparison needs exactly two upscalers, not {names}")
        if self.count < 1:
            raise ValueError(f"{self.count} pairs: at least one is needed")


def make_pairs(comparison: Comparison) -> Iterator[Pair]:
    """Upscale and crop, pair by pair; the same seed gives the same pairs in the same order.

    Every truth comes in every track before one comes again, with another crop.
    """
    rng = np.random.default_rng(comparison.seed)
    subjects = [(truth, track) for truth in comparison.truths for track in comparison.tracks]
    order: list[int] = []
    while len(order) < comparison.count:
        order += [int(number) for number in rng.permutation(len(subjects))]
    for number in order[: comparison.count]:
        truth, track = subjects[number]
        small = make_small(track, truth.pixels, comparison.scale, truth.name)
        window = _choose_window(truth.pixels, rng)
        labels = sorted(comparison.upscalers)
        left, right = labels if rng.random() < 0.5 else labels[::-1]
        left_px, right_px = (
            np.ascontiguousarray(run(comparison.upscalers[label], small)[window])
            for label in (left, right)
        )
        yield Pair(truth.name, track, left, right, left_px, right_px)


def _choose_window(truth: Pixels, rng: Generator) -> tuple[slice, slice]:
    """Choose a random crop, but not of a flat area if there is another."""
    height, width = truth.shape[:2]
    for _ in range(_TRIES):
        top = int(rng.integers(0, max(1, height - CROP_PX + 1)))
        left = int(rng.integers(0, max(1, width - CROP_PX + 1)))
        window = (slice(top, top + CROP_PX), slice(left, left + CROP_PX))
        if truth[window].std() >= _FLAT_LEVELS:
            break
    return window
