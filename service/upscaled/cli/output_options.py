"""Options of `upscaled image` that choose the format, size and name of its results."""

from typing import Annotated

import typer

from upscaled.image.output import MAX_QUALITY, OUTPUT_FORMATS, OutputChoice
from upscaled.upscale.result import MAX_RESULT_SIDE_PX


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


def make_choice(
    form: str,
    quality: int | None,
    *,
    max_side_px: int | None,
    width_px: int | None,
    height_px: int | None,
) -> OutputChoice:
    """Return what the options choose.

    Raises:
        typer.BadParameter: a quality beside a format that has none.
    """
    choice = OutputChoice(form, quality, max_side_px, width_px, height_px)
    if quality is not None and not choice.has_quality:
        raise typer.BadParameter(f"--quality: {form} has no quality")
    return choice
