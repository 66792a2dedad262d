"""Options that `upscaled image` and `upscaled watch` share, of the upscaling and of its results."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from upscaled.cli.batch_places import FORMATS_OF_ENDS
from upscaled.config import SCALES
from upscaled.image.output import MAX_QUALITY, METADATA_CHOICES, OUTPUT_FORMATS, OutputChoice
from upscaled.upscale.result import MAX_RESULT_SIDE_PX


def check_scale(scale: int | None) -> int | None:
    """Refuse a scale that is neither 2 nor 4; None stands for one that was not given."""
    if scale is not None and scale not in SCALES:
        raise typer.BadParameter("must be 2 or 4")
    return scale


def _check_suffix(suffix: str) -> str:
    if any(character in suffix for character in "/\\\0"):
        raise typer.BadParameter("must be a part of a file's name")
    return suffix


def _choice(names: tuple[str, ...], text: str, *declarations: str) -> typer.models.OptionInfo:
    """Make an option whose value is one of `names`, in any case, or nothing."""

    def check(name: str) -> str:
        if name.lower() not in ("", *names):
            raise typer.BadParameter(f"must be one of {', '.join(names)}")
        return name.lower()

    option: typer.models.OptionInfo = typer.Option(
        *declarations, metavar="|".join(names), callback=check, help=text, show_default=False
    )
    return option


def _side(name: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="PX", min=1, max=MAX_RESULT_SIDE_PX, help=text
    )
    return option


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """Values of the shared options; each field is an option of the command line."""

    scale: Annotated[int, typer.Option(metavar="2|4", callback=check_scale, help="2 or 4.")]
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model of `upscaled models list`."),
    ] = None
    denoise: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            min=0,
            max=1,
            help="1 removes most noise, 0 keeps the grain; only for models with this choice.",
        ),
    ] = None
    is_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON lines on a terminal too, as elsewhere."),
    ] = False
    is_overwriting: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Also replace files that this command did not make, or that changed since.",
        ),
    ] = False
    form: Annotated[str, _choice(tuple(OUTPUT_FORMATS), "Format of the results.", "--format")] = ""
    quality: Annotated[
        int | None,
        typer.Option(metavar="1-100", min=1, max=MAX_QUALITY, help="For JPEG, WebP or AVIF."),
    ] = None
    max_side_px: Annotated[
        int | None, _side("--max-side", "Longer results are scaled down to it.")
    ] = None
    width_px: Annotated[int | None, _side("--width", "Width to scale results down to.")] = None
    height_px: Annotated[
        int | None, _side("--height", "Height to scale down to; with --width, to fit both.")
    ] = None
    metadata: Annotated[
        str,
        _choice(
            METADATA_CHOICES,
            "Copy EXIF and XMP of the pictures into the results; GPS only with keep-all.",
        ),
    ] = ""
    suffix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            callback=_check_suffix,
            help="End of the results' names, in place of -x4.",
            show_default=False,
        ),
    ] = ""

    def choose_output(self, target: Path | None = None) -> OutputChoice:
        """Return what the options choose for the results, or for the one in the file `target`.

        Raises:
            typer.BadParameter: a quality beside a format that has none, or a format that is not
                that of `target`.
        """
        form = self.form
        if target is not None:
            named = FORMATS_OF_ENDS[target.suffix.lower()]
            form = form or named
            if OUTPUT_FORMATS[form] != OUTPUT_FORMATS[named]:
                raise typer.BadParameter(f"-o {target.name} is no name of a {form} file")
        sides_px = self.max_side_px, self.width_px, self.height_px
        choice = OutputChoice(form, self.quality, *sides_px, self.metadata)
        if self.quality is not None and not choice.has_quality:
            raise typer.BadParameter(f"--quality: {form} has no quality")
        return choice


def with_batch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each field of `BatchOptions` to a command with an argument of that type."""
    shared = inspect.signature(BatchOptions).parameters
    own = inspect.signature(command).parameters

    @functools.wraps(command)
    def run(**values: object) -> None:
        given = {name: values.pop(name) for name in shared}
        command(**values, options=BatchOptions(**given))  # type: ignore[arg-type]

    named = [each.replace(kind=each.KEYWORD_ONLY) for each in own.values()]
    at = list(own).index("options")
    parameters = [*named[:at], *shared.values(), *named[at + 1 :]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
