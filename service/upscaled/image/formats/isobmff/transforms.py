"""Read crop, rotation and mirroring of a HEIF image (ISO/IEC 23008-12, 6.5.9 to 6.5.12).

They are properties of the image's item: `clap`, `irot` and `imir`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

from upscaled.image.types import Rectangle

TRANSFORMS: Final = (b"clap", b"irot", b"imir")
"""The order in which MIAF (ISO/IEC 23000-22), and so AVIF, has them applied."""


@dataclass(frozen=True, slots=True)
class Transform:
    """Property of an image: a crop, or a count of turns by 90 degrees, or a mirroring (neither).

    crop: a clean aperture: its width and height, and how far its centre lies right of and below
        the image's.
    """

    name: bytes
    crop: tuple[Fraction, ...] = ()
    quarter_turns: int = 0

    def crop_rectangle(self, width_px: int, height_px: int) -> Rectangle:
        """Compute what a crop keeps of an image of that size.

        A fraction of a pixel is rounded as by libheif: left and top down, then the far sides to
        the nearest pixel. What lies outside of the image is left out; something must be left.
        """
        width, height, right_of_centre, below_centre = self.crop
        left, right = _span(width, right_of_centre, width_px)
        top, bottom = _span(height, below_centre, height_px)
        return left, top, right, bottom


def read_transform(name: bytes, body: memoryview) -> Transform:
    """Read a box that is one of `TRANSFORMS`.

    A crop is four fractions, of which the offsets may be negative (ISO/IEC 14496-12, 12.1.4).
    """
    if name == b"irot":
        return Transform(name, quarter_turns=body[0] & 3)
    if name == b"imir":
        return Transform(name)
    numbers = struct.unpack_from(">IIIIiIiI", body)
    if 0 in numbers[1::2]:
        raise ValueError("a crop divided by zero")
    return Transform(name, crop=tuple(map(Fraction, numbers[::2], numbers[1::2])))


def transformed_size(
    width_px: int, height_px: int, transforms: Sequence[Transform]
) -> tuple[int, int]:
    """Compute (width, height) of an image after its transforms, one after the other."""
    for transform in transforms:
        if transform.crop:
            left, top, right, bottom = transform.crop_rectangle(width_px, height_px)
            width_px, height_px = right - left, bottom - top
        elif transform.quarter_turns % 2:
            width_px, height_px = height_px, width_px
    return width_px, height_px


def _span(length: Fraction, offset: Fraction, whole_px: int) -> tuple[int, int]:
    """Compute where a crop begins and ends along one side."""
    centre = offset + Fraction(whole_px - 1, 2)
    start = int(centre - (length - 1) / 2)
    end = floor(start + length + Fraction(1, 2))
    start, end = max(0, start), min(whole_px, end)
    if start >= end:
        raise ValueError("a crop that leaves nothing")
    return start, end
