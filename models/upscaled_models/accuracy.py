"""The accuracy check: measure how far a picture is from float32's, by a limit for each type."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.base import Window

MIN_PSNR_DB: Final[Mapping[str, float]] = {"auto": 46.0, "fast": 40.0}
"""Lowest PSNR of a model in 8 bits against float32, by precision, on pictures not used to calibrate
it: 46 dB are a root mean square error of 1.3 levels of 255, 40 dB one of 2.6."""

MAX_MEAN_SHIFT: Final = 0.5
"""Limit on the shift of any picture's mean colour, in levels of 255: a picture that is evenly too
dark is wrong at any PSNR."""

MAX_FLAT_SHIFT: Final = 1.0
"""The same limit for a flat colour. A colour between two levels may be rounded to either, a whole
level everywhere for a tiny error."""

MAX_FLAT_LEVELS: Final = 4
"""Most that any pixel of a flat colour may be off, where float32 itself does not keep it flat."""

MAX_PSNR_DB: Final = 120.0
"""Stands for equal pictures: a number, so that it can be stored and compared."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Limits on the distance from float32's results for the autotuner's own pictures.

    are_flats_checked: whether flat colours must come back as float32 gives them. max_mean_shift: in
    levels of 255, of any picture's mean colour.
    """

    min_psnr_db: float
    are_flats_checked: bool = True
    max_mean_shift: float = MAX_MEAN_SHIFT


FLOAT_BARS: Final = {"auto": Bar(50.0), "fast": Bar(40.0)}
INT8_MARGIN_DB: Final = 1.0
INT8_BARS: Final = {
    precision: Bar(least_db - INT8_MARGIN_DB) for precision, least_db in MIN_PSNR_DB.items()
}
"""Bars of a model in 8 bits that invents no texture: what its recorded proof had to reach, less the
scatter of two small pictures around the many of that proof (upscaled-x4-faithful: 47.1 dB there,
46.4 here)."""

RECORDED_BAR: Final = Bar(25.0, are_flats_checked=False, max_mean_shift=4.0)
"""Bar of a model in 8 bits whose recorded proof was made against the true pictures. Texture that a
network invents is chaotic, so decibels against float32 in one small picture say little. x4plus in 8
bits: 40 dB on photographs, 37.7 on the photograph here, but 26.7 in the drawing's glaring colours,
where its mean blue is off by 2.7 levels before colour correction, which sets that right. Both
together are at 29.3 dB; what a broken backend computes is far below 25."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A candidate's result against float32's, in levels of 255 except `psnr_db`.

    mean_shift: the largest difference of a mean colour. flat_largest and flat_mean_shift: the same
    of flat colours, None and 0 where none were compared. is_flat_kept: every flat colour that
    float32 gives back exactly came back exactly. is_black: nothing but black, where float32 shows
    something.
    """

    psnr_db: float
    largest: int
    mean: float
    mean_shift: float
    flat_largest: int | None
    flat_mean_shift: float
    is_flat_kept: bool
    is_black: bool

    def find_fault(self, bar: Bar) -> str:
        """Say why a candidate that must reach `bar` may not be chosen; empty if it may."""
        if self.is_black:
            return "black"
        if self.mean_shift > bar.max_mean_shift:
            return f"its mean colour is off by {self.mean_shift:.2f} levels"
        if bar.are_flats_checked and (fault := self._find_flat_fault()):
            return fault
        if self.psnr_db < bar.min_psnr_db:
            return f"{self.psnr_db:.1f} dB of the {bar.min_psnr_db:.0f} that it must reach"
        return ""

    def _find_flat_fault(self) -> str:
        if self.flat_mean_shift > MAX_FLAT_SHIFT:
            return f"its mean colour is off by {self.flat_mean_shift:.2f} levels"
        if not self.is_flat_kept or (self.flat_largest or 0) > MAX_FLAT_LEVELS:
            return f"flat colours are off by up to {self.flat_largest} levels"
        return ""

    def __str__(self) -> str:
        if not self.largest and not self.flat_largest:
            return "the same picture as float32"
        return (
            f"{self.psnr_db:.1f} dB against float32, largest error {self.largest} of 255, "
            f"mean {self.mean:.3f}, {self._describe_flats()}"
        )

    def _describe_flats(self) -> str:
        if self.flat_largest is None:
            return "in one small picture, beside the proof that came with its file"
        return (
            f"flat colours within {self.flat_largest}" if self.flat_largest else "flat colours kept"
        )


def measure_accuracy(
    expected: Sequence[Window],
    got: Sequence[Window],
    flats: Sequence[Window] = (),
    expected_flats: Sequence[Window] = (),
    got_flats: Sequence[Window] = (),
) -> Accuracy:
    """Compare a candidate's results for real pictures and for flat colours with float32's.

    All are uint8 `[h, w, 3]`. expected, expected_flats: float32's results, at least one for a
    picture. got, got_flats: the candidate's. flats: the flat colours that went in; none where the
    candidate's bar does not check them.
    """
    errors = [_difference(a, b) for a, b in zip(expected, got, strict=True)]
    flat_errors = [_difference(a, b) for a, b in zip(expected_flats, got_flats, strict=True)]
    squares = float(np.mean([np.square(error).mean() for error in errors]))
    return Accuracy(
        psnr_db=psnr_db(squares),
        largest=int(max(np.abs(error).max() for error in errors)),
        mean=float(np.mean([np.abs(error).mean() for error in errors])),
        mean_shift=max(_mean_shift(error) for error in errors),
        flat_largest=max((int(np.abs(error).max()) for error in flat_errors), default=None),
        flat_mean_shift=max((_mean_shift(error) for error in flat_errors), default=0.0),
        is_flat_kept=all(
            not error.any()
            for flat, result, error in zip(flats, expected_flats, flat_errors, strict=True)
            if (result == flat[0, 0]).all()
        ),
        is_black=any(a.any() and not b.any() for a, b in zip(expected, got, strict=True)),
    )


def psnr_db(mean_square: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean square error in levels of 255."""
    if not mean_square:
        return MAX_PSNR_DB
    return min(MAX_PSNR_DB, 10 * math.log10(255**2 / mean_square))


def _difference(expected: Window, got: Window) -> NDArray[np.float64]:
    return got.astype(np.float64) - expected


def _mean_shift(error: NDArray[np.float64]) -> float:
    return float(np.abs(error.mean(axis=(0, 1))).max())
