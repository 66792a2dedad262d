"""Options of the Python API that choose the format, quality and size of a result."""

from typing import Final, TypedDict

from upscaled.errors import InvalidParameter
from upscaled.image.output import MAX_QUALITY, OutputChoice
from upscaled.upscale.result import MAX_RESULT_SIDE_PX

_RANGES: Final = {
    "quality": MAX_QUALITY,
    "max_side_px": MAX_RESULT_SIDE_PX,
    "width_px": MAX_RESULT_SIDE_PX,
    "height_px": MAX_RESULT_SIDE_PX,
}
"""The largest value of each option that is a number; the smallest is 1."""

_OF_FILES: Final = ("format", "quality", "metadata")


class OutputOptions(TypedDict, total=False):
    """Options of a result; without any it is as the service gives it.

    format: jpeg, png, webp, avif or lossless, of a result that is a file. quality: of a JPEG, WebP
    or AVIF, 1 to 100. max_side_px: a longer result is scaled down to it. width_px, height_px: the
    result is scaled down to these, as large as both allow; 1 to 20,000. metadata: keep or keep-all,
    of what the source's file says about it.
    """

    format: str
    quality: int
    max_side_px: int
    width_px: int
    height_px: int
    metadata: str


def read_options(options: OutputOptions, *, is_file: bool) -> OutputChoice:
    """Return the choice that options make.

    Args:
        is_file: the result is encoded: an array or a picture in memory has no format.

    Raises:
        InvalidParameter: a value that cannot be, or a quality beside a format that has none.
    """
    for name, most in _RANGES.items():
        value = options.get(name)
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise InvalidParameter(f"{name} must be a whole number from 1 to {most}")
    if not is_file and not options.keys().isdisjoint(_OF_FILES):
        raise InvalidParameter(f"{', '.join(_OF_FILES)} are those of a file, not of pixels")
    try:
        choice = OutputChoice(**options)
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    if choice.quality is not None and not choice.has_quality:
        raise InvalidParameter(f"quality: {choice.format} has no quality")
    return choice
