"""How far a candidate's picture is from float32's, and whether that is near enough."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.engine.engine import Window

MIN_PSNR_DB: Final = {"auto": 50.0, "fast": 40.0}
MAX_MEAN_SHIFT: Final = 0.5
"""In levels of 255, of any picture's mean colour: what is evenly too dark is wrong at any PSNR."""

MAX_FLAT_SHIFT: Final = 1.0
"""The same of a flat colour. One that lies between two levels is rounded to either: that alone is a
whole level all over, for an error of next to nothing."""

MAX_FLAT_LEVELS: Final = 4
"""Most that any pixel of a flat colour may be off, where float32 itself does not keep it flat."""

MAX_PSNR_DB: Final = 120.0
"""Stands for "the same"; a number, so that it can be stored and compared."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A candidate's result against float32's, in levels of 255 except `psnr_db`.

    mean_shift: the largest difference of a mean colour. flat_largest and flat_mean_shift: the same
    of flat colours. is_flat_kept: every flat colour that float32 gives back exactly came back
    exactly. is_black: nothing but black, where float32 shows something.
    """

    psnr_db: float
    largest: int
    mean: float
    mean_shift: float
    flat_largest: int
    flat_mean_shift: float
    is_flat_kept: bool
    is_black: bool

    def find_fault(self, precision: str) -> str:
        """Why this may not be chosen in `precision` ("auto" or "fast"); empty if it may."""
        if self.is_black:
            return "black"
        if self.mean_shift > MAX_MEAN_SHIFT or self.flat_mean_shift > MAX_FLAT_SHIFT:
            shift = max(self.mean_shift, self.flat_mean_shift)
            return f"its mean colour is off by {shift:.2f} levels"
        if not self.is_flat_kept or self.flat_largest > MAX_FLAT_LEVELS:
            return f"flat colours are off by up to {self.flat_largest} levels"
        if self.psnr_db < MIN_PSNR_DB[precision]:
            return (
                f"{self.psnr_db:.1f} dB of the {MIN_PSNR_DB[precision]:.0f} that {precision} asks"
            )
        return ""

    def __str__(self) -> str:
        if not self.largest and not self.flat_largest:
            return "the same picture as float32"
        flat = "kept" if not self.flat_largest else f"within {self.flat_largest}"
        return (
            f"{self.psnr_db:.1f} dB against float32, largest error {self.largest} of 255, "
            f"mean {self.mean:.3f}, flat colours {flat}"
        )


def prove(
    expected: Sequence[Window],
    got: Sequence[Window],
    *,
    flats: Sequence[Window],
    expected_flats: Sequence[Window],
    got_flats: Sequence[Window],
) -> Proof:
    """Compare a candidate's results for real pictures and for flat colours with float32's.

    Args:
        expected: float32's results, uint8 `[h, w, 3]`, at least one; `got`: the candidate's.
        flats: the flat colours that went in; `expected_flats` and `got_flats`: what came out.
    """
    errors = [_difference(a, b) for a, b in zip(expected, got, strict=True)]
    flat_errors = [_difference(a, b) for a, b in zip(expected_flats, got_flats, strict=True)]
    squares = float(np.mean([np.square(error).mean() for error in errors]))
    return Proof(
        psnr_db=min(MAX_PSNR_DB, 10 * math.log10(255**2 / squares)) if squares else MAX_PSNR_DB,
        largest=int(max(np.abs(error).max() for error in errors)),
        mean=float(np.mean([np.abs(error).mean() for error in errors])),
        mean_shift=max(_mean_shift(error) for error in errors),
        flat_largest=int(max(np.abs(error).max() for error in flat_errors)),
        flat_mean_shift=max(_mean_shift(error) for error in flat_errors),
        is_flat_kept=all(
            not error.any()
            for flat, result, error in zip(flats, expected_flats, flat_errors, strict=True)
            if (result == flat[0, 0]).all()
        ),
        is_black=any(a.any() and not b.any() for a, b in zip(expected, got, strict=True)),
    )


def _difference(expected: Window, got: Window) -> NDArray[np.float64]:
    return got.astype(np.float64) - expected


def _mean_shift(error: NDArray[np.float64]) -> float:
    return float(np.abs(error.mean(axis=(0, 1))).max())
