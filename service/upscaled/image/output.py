"""Decide what the file of a result will be, once and before any pixel is decoded."""

from dataclasses import dataclass
from typing import Final

from upscaled.image.formats.table import FORMATS, JPEG, PNG
from upscaled.image.types import Header, Image

MAX_CANVAS_PX: Final = 2 * 6000**2
"""Limits the canvases of all results that one process computes at once, two of the largest over
HTTP: 216 MB. A single one may be larger."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Format, size and depth of a result.

    format: "JPEG", or "PNG" where there is transparency or 16 bits a channel.
    width_px, height_px: its upright size.
    is_deep: it has 16 bits a channel.
    canvas_px: pixels of the canvas that a worker holds for it, larger than the result where that
        is scaled down; deep ones count twice, as they weigh.
    """

    format: str
    width_px: int
    height_px: int
    is_deep: bool
    canvas_px: int

    @property
    def longest_px(self) -> int:
        return max(self.width_px, self.height_px)

    @property
    def media_type(self) -> str:
        return FORMATS[self.format].media_type

    @property
    def suffix(self) -> str:
        """Return the end of a file name, without its dot."""
        return FORMATS[self.format].suffix


def decide_output(
    source: Header | Image, scale: int, *, keeps_depth: bool, max_side_px: int
) -> OutputSpec:
    """Decide the result of upscaling an image.

    Args:
        source: the header of its file, or its pixels where there is no file.
        scale: 2 or 4.
        keeps_depth: an opaque image of 16 bits keeps them (the setting `deep_png`). One with
            alpha always does: its result is a PNG in any case.
        max_side_px: a longer result is scaled down to it, its shape kept.
    """
    is_deep = source.is_deep and (source.has_alpha or keeps_depth)
    width_px, height_px = source.width_px * scale, source.height_px * scale
    canvas_px = width_px * height_px * (2 if is_deep else 1)
    if max(width_px, height_px) > max_side_px:
        longest_px = max(source.width_px, source.height_px)
        width_px, height_px = (
            max(1, round(side_px * max_side_px / longest_px))
            for side_px in (source.width_px, source.height_px)
        )
    # JPEG holds neither alpha nor 16 bits a channel.
    name = PNG.name if source.has_alpha or is_deep else JPEG.name
    return OutputSpec(name, width_px, height_px, is_deep, canvas_px)
