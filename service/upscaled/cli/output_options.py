"""Options of `upscaled image` that choose the format, size and name of its results."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from upscaled.cli.batch import parse_place
from upscaled.image.output import MAX_QUALITY, OUTPUT_FORMATS, OutputChoice
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
Suffix = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        callback=_check_suffix,
        help="end of the results' names, in place of -x4",
        show_default=False,
    ),
]


def find_target(output: str | None) -> Path | None:
    """Return the file that `-o` names by the end of a format; None for a folder or a bucket."""
    if output is None or parse_place(output) != Path(output) or Path(output).is_dir():
        return None
    return (
        Path(os.path.abspath(output)) if Path(output).suffix.lower() in _FORMATS_OF_ENDS else None
    )


def make_choice(
    form: str,
    quality: int | None,
    *,
    target: Path | None,
    max_side_px: int | None,
    width_px: int | None,
    height_px: int | None,
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
    choice = OutputChoice(form, quality, max_side_px, width_px, height_px)
    if quality is not None and not choice.has_quality:
        raise typer.BadParameter(f"--quality: {form} has no quality")
    return choice
