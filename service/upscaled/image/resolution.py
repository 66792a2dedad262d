"""How many pixels of a picture make an inch on paper."""

import math
from typing import Final

from upscaled.image.exif import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, Exif

Dpi = tuple[float, float]

_UNITS_PER_INCH: Final = {2: 1.0, 3: 2.54}
_LARGEST: Final = 1_000_000.0


def read_dpi(exif: Exif, of_format: object) -> Dpi | None:
    """(across, down) as the picture is stored: by the format's own field, else by EXIF's.

    of_format: what Pillow found there, if anything. None where neither holds a sensible value.
    """
    return _sensible(of_format) or _sensible(_of_exif(exif))


def turned(dpi: Dpi | None, *, swaps_sides: bool) -> Dpi | None:
    """The resolution of the upright picture."""
    return (dpi[1], dpi[0]) if dpi and swaps_sides else dpi


def _of_exif(exif: Exif) -> object:
    per_inch = _UNITS_PER_INCH.get(exif.whole(RESOLUTION_UNIT) or 2)
    across, down = exif.ratio(X_RESOLUTION), exif.ratio(Y_RESOLUTION)
    if not per_inch or not across or not down:
        return None
    return across * per_inch, down * per_inch


def _sensible(dpi: object) -> Dpi | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    try:
        across, down = (float(side) for side in dpi)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    is_sensible = all(math.isfinite(side) and 1 <= side <= _LARGEST for side in (across, down))
    return (across, down) if is_sensible else None
