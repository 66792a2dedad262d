"""Decide what the file of a result will be, once and before any pixel is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Final

from upscaled.errors import InvalidParameter, ResolutionTooHigh
from upscaled.image.formats.table import AVIF, ENCODED, FORMATS, JPEG, PNG
from upscaled.image.types import Header, Image, MetadataPlan

MAX_OUTPUT_SIDE_PX: Final = 6000
"""Longest side of a result over HTTP, by the contract."""
MAX_CANVAS_PX: Final = 2 * MAX_OUTPUT_SIDE_PX**2
"""Limits the canvases of all results that one process computes at once, two of the largest over
HTTP: 216 MB. A single one may be larger."""

LOSSLESS: Final = "lossless"
OUTPUT_FORMATS: Final[Mapping[str, str]] = {
    **{each.name.lower(): each.name for each in ENCODED},
    LOSSLESS: PNG.name,
}
"""The formats that a result may be asked for in, by the names that requests use."""
KEEP, KEEP_ALL = "keep", "keep-all"
METADATA_CHOICES: Final = (KEEP, KEEP_ALL)
"""Choices of the source's metadata; the two differ in GPS, which only the second keeps."""
MAX_QUALITY: Final = 100
MAX_ENCODER_BYTES: Final = AVIF.encode_bytes_per_px * MAX_OUTPUT_SIDE_PX**2
"""Limits the memory of encoders that begin when all pixels are there and run at once in one
process, beside canvases: one of the largest AVIF over HTTP, 1.7 GB. A single one may be larger."""


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """The wishes of a request or a command for its result; without any it is as the contract says.

    format: a name of `OUTPUT_FORMATS`; "" for JPEG, or PNG where there is transparency. JPEG lays
        what is transparent on white. "lossless" keeps all bits that the source has, "png" 16 bits
        only as `decide_output` does without a choice.
    quality: the encoder's, 1 to `MAX_QUALITY`; None for the usual one. It does not concern a PNG.
    max_side_px: a longer result is scaled down to it.
    width_px, height_px: the result is scaled down to these, as large as both allow.
    metadata: one of `METADATA_CHOICES`; "" for none of the source's.
    """

    format: str = ""
    quality: int | None = None
    max_side_px: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    metadata: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a format or a choice of metadata that there is not."""
        if self.format not in ("", *OUTPUT_FORMATS):
            raise ValueError(f"format {self.format!r}: must be one of {', '.join(OUTPUT_FORMATS)}")
        if self.metadata not in ("", *METADATA_CHOICES):
            raise ValueError(
                f"metadata {self.metadata!r}: must be one of {', '.join(METADATA_CHOICES)}"
            )

    @property
    def has_quality(self) -> bool:
        """Return whether the result may be of a format with a quality."""
        return OUTPUT_FORMATS.get(self.format) != PNG.name

    def changes(self) -> dict[str, object]:
        """Return what differs from no choice: arguments that make it again."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(NO_CHOICE, name)}


NO_CHOICE: Final = OutputChoice()


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Format, size and depth of a result.

    format: "JPEG", or "PNG" where there is transparency or 16 bits a channel; or what was chosen.
    width_px, height_px: its upright size.
    is_deep: it has 16 bits a channel.
    canvas_px: pixels of the canvas that a worker holds for it, larger than the result where that
        is scaled down; deep ones count twice, as they weigh.
    quality: of the encoder; None for the usual one.
    is_size_chosen: the request or the command asked for this size: it is scaled down in linear
        light.
    metadata: as of `OutputChoice`.
    """

    format: str
    width_px: int
    height_px: int
    is_deep: bool
    canvas_px: int
    quality: int | None = None
    is_size_chosen: bool = False
    metadata: str = ""

    @property
    def metadata_plan(self) -> MetadataPlan | None:
        """Return what of the source's metadata goes into the result; None for nothing."""
        if not self.metadata:
            return None
        return MetadataPlan(self.metadata == KEEP_ALL, self.width_px, self.height_px)

    @property
    def encoder_bytes(self) -> int:
        """Return the memory of an encoder that begins when all pixels are there; 0 of others."""
        return self.width_px * self.height_px * FORMATS[self.format].encode_bytes_per_px

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
    source: Header | Image,
    scale: int,
    *,
    keeps_depth: bool,
    max_side_px: int,
    choice: OutputChoice = NO_CHOICE,
) -> OutputSpec:
    """Decide the result of upscaling an image.

    Args:
        source: the header of its file, or its pixels where there is no file.
        scale: 2 or 4.
        keeps_depth: an opaque image of 16 bits keeps them (the setting `deep_png`). One with
            alpha always does: its result is a PNG in any case.
        max_side_px: a longer result is scaled down to it, its shape kept.

    Raises:
        ResolutionTooHigh: the format that was chosen cannot hold it.
        InvalidParameter: the width or height that was chosen is larger than the result.
    """
    chosen = OUTPUT_FORMATS.get(choice.format)
    is_kept = source.has_alpha or keeps_depth or choice.format == LOSSLESS
    is_deep = source.is_deep and is_kept and chosen in (None, PNG.name)
    width_px, height_px = source.width_px * scale, source.height_px * scale
    canvas_px = width_px * height_px * (2 if is_deep else 1)
    gain, is_size_chosen = _decide_gain(source, scale, max_side_px, choice)
    if gain < scale:
        width_px, height_px = (
            max(1, round(side_px * gain)) for side_px in (source.width_px, source.height_px)
        )
    # JPEG holds neither alpha nor 16 bits a channel.
    name = chosen or (PNG.name if source.has_alpha or is_deep else JPEG.name)
    form = FORMATS[name]
    if form.max_side_px and max(width_px, height_px) > form.max_side_px:
        raise ResolutionTooHigh(
            f"Image resolution too high: {form.label} holds at most {form.max_side_px} px a side"
        )
    return OutputSpec(
        name,
        width_px,
        height_px,
        is_deep,
        canvas_px,
        choice.quality,
        is_size_chosen,
        choice.metadata,
    )


def _decide_gain(
    source: Header | Image, scale: int, max_side_px: int, choice: OutputChoice
) -> tuple[Fraction, bool]:
    """Decide how much larger the result is than the source, and whether a choice says so.

    InvalidParameter: the width or height that was chosen is larger than the result.
    """
    longest_px = max(source.width_px, source.height_px)
    most = min(Fraction(scale), Fraction(max_side_px, longest_px))
    sides = ((choice.width_px, source.width_px), (choice.height_px, source.height_px))
    wanted = min((Fraction(px, own_px) for px, own_px in sides if px is not None), default=most)
    if wanted > most:
        width_px, height_px = int(source.width_px * most), int(source.height_px * most)
        raise InvalidParameter(
            f"The result at scale {scale} is {width_px}x{height_px} pixels, "
            "smaller than the width or height asked for"
        )
    gain = min(wanted, Fraction(choice.max_side_px or max_side_px, longest_px))
    return gain, gain < most
