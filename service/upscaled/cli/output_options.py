"""Options of `upscaled image` that choose the format, size, name and place of its results."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from upscaled.batch.s3_url import S3Url
from upscaled.batch.standard_streams import STREAM, OutputStream
from upscaled.cli.batch_places import parse_place
from upscaled.image.output import MAX_QUALITY, METADATA_CHOICES, OUTPUT_FORMATS, OutputChoice
from upscaled.upscale.result import MAX_RESULT_SIDE_PX

_FORMATS_OF_ENDS: Final = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".avif": "avif",
}


def _check_suffix(suffix: str) -> str:
    if any(character in suffix for character in "/\\\0"):
        raise typer.BadParameter("must be a part of a file's name")
    return suffix


def _check_format(form: str) -> str:
    if form.lower() not in ("", *OUTPUT_FORMATS):
        raise typer.BadParameter(f"must be one of {', '.join(OUTPUT_FORMATS)}")
    return form.lower()


def _check_metadata(metadata: str) -> str:
    if metadata.lower() not in ("", *METADATA_CHOICES):
        raise typer.BadParameter(f"must be one of {', '.join(METADATA_CHOICES)}")
    return metadata.lower()


def _side(name: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="PX", min=1, max=MAX_RESULT_SIDE_PX, help=text
    )
    return option


Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="|".join(OUTPUT_FORMATS),
        callback=_check_format,
        help="format of the results",
        show_default=False,
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(metavar="1-100", min=1, max=MAX_QUALITY, help="of a JPEG, WebP or AVIF"),
]
MaxSide = Annotated[int | None, _side("--max-side", "longer results are scaled down to it")]
Width = Annotated[int | None, _side("--width", "results are scaled down to it")]
Height = Annotated[int | None, _side("--height", "the same; with both as large as both allow")]
Metadata = Annotated[
    str,
    typer.Option(
        metavar="|".join(METADATA_CHOICES),
        callback=_check_metadata,
        help="EXIF and XMP of the pictures go into their results; GPS only by keep-all",
        show_default=False,
    ),
]
Suffix = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        callback=_check_suffix,
        help="end of the results' names, in place of -x4",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Place of the results, as `-o` names it.

    text: as it was written; None without `-o`. output: a folder, a bucket, standard output, or None
    for results beside their sources or in `target`. target: the file of one picture's result.
    """

    text: str | None = None
    output: Path | S3Url | OutputStream | None = None
    target: Path | None = None

    @property
    def is_for_one(self) -> bool:
        """Return whether it takes the result of one picture only."""
        return self.target is not None or isinstance(self.output, OutputStream)


def find_place(text: str | None) -> ResultPlace:
    """Return the place that `-o` names: the end of a format makes it a file, `-` a stream.

    Raises:
        typer.BadParameter: a picture would go to a terminal, or standard output is closed.
    """
    if text is None:
        return ResultPlace()
    if text == STREAM:
        if sys.stdout is None:
            raise typer.BadParameter("-o -: there is no standard output")
        if sys.stdout.isatty():
            raise typer.BadParameter(
                "-o - writes a picture to standard output, which is a terminal: "
                "lead it into a file or a program, or name a file"
            )
        return ResultPlace(text, output=OutputStream())
    place = parse_place(text)
    is_file = isinstance(place, Path) and place.suffix.lower() in _FORMATS_OF_ENDS
    if is_file and not os.path.isdir(text):
        return ResultPlace(text, target=Path(os.path.abspath(text)))
    return ResultPlace(text, output=place)


def make_choice(
    form: str,
    quality: int | None,
    *,
    target: Path | None,
    max_side_px: int | None,
    width_px: int | None,
    height_px: int | None,
    metadata: str,
) -> OutputChoice:
    """Return what the options choose.

    Raises:
        typer.BadParameter: a quality beside a format that has none, or a format that is not that
            of `target`.
    """
    if target is not None:
        named = _FORMATS_OF_ENDS[target.suffix.lower()]
        form = form or named
        if OUTPUT_FORMATS[form] != OUTPUT_FORMATS[named]:
            raise typer.BadParameter(f"-o {target.name} is no name of a file in format {form}")
    choice = OutputChoice(form, quality, max_side_px, width_px, height_px, metadata)
    if quality is not None and not choice.has_quality:
        raise typer.BadParameter(f"--quality: {form} has no quality")
    return choice
