"""Upscale one image of any kind that the Python API accepts: an array, a picture or a file."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from upscaled.config import Settings
from upscaled.errors import InvalidParameter
from upscaled.image.formats.table import read_header
from upscaled.image.output import OutputSpec
from upscaled.upscale.concurrency import Cancellation
from upscaled.upscale.conversion import (
    OutputOptions,
    read_array,
    read_options,
    read_pillow,
    write_pillow,
)
from upscaled.upscale.core import Core
from upscaled.upscale.named_models import name_denoised
from upscaled.upscale.result import Result, decide_local_output
from upscaled_models.errors import ModelRefused

AnyImage = TypeVar("AnyImage", bytes, NDArray[np.uint8], NDArray[np.uint16], PillowImage.Image)
OnProgress = Callable[[int, int], None]


class ImageOptions(OutputOptions, total=False):
    """Options of an image: those of its result, and the model that upscales it.

    model: another model than the upscaler's, by its name. denoise: of `realesr-general-x4v3`, where
    `model` or the upscaler names it: from 1, which removes noise most, to 0, which keeps it;
    rounded to a tenth. None: as the upscaler's own `denoise` says. Several strengths may be in
    memory at once.
    """

    model: str
    denoise: float | None


class CallOptions(ImageOptions, total=False):
    """Options of one call: those of its image, and its progress and cancellation.

    on_progress: called with (tiles done, all tiles), before the first tile and after each.
    cancellation: cancels the work from another thread.
    """

    on_progress: OnProgress | None
    cancellation: Cancellation | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Python API: the image, of any kind of `AnyImage`, and how to upscale it."""

    image: Any
    scale: int
    model: str
    output: OutputOptions
    cancellation: Cancellation | None
    on_progress: OnProgress | None


def plan_call(core: Core, image: object, scale: int, options: CallOptions) -> Call:
    """Check a call's scale and strength, and split its options into the result's and the others.

    Raises:
        InvalidParameter: the core was not opened for the scale, `denoise` is not from 0 to 1, or
            the model has no such strength.
    """
    if not _is_scale_of(core, scale):
        scales = " or ".join(map(str, core.ladders))
        raise InvalidParameter(f"scale {scale}: must be {scales}")
    output = options.copy()
    model, denoise = output.pop("model", ""), output.pop("denoise", None)
    cancellation, on_progress = output.pop("cancellation", None), output.pop("on_progress", None)
    if denoise is not None:
        model = _name_denoised(core.settings, scale, model, denoise)
    return Call(image, scale, model, output, cancellation, on_progress)


def _is_scale_of(core: Core, scale: int) -> bool:
    try:
        return operator.index(scale) in core.ladders
    except TypeError:
        return False


def _name_denoised(settings: Settings, scale: int, model: str, denoise: float) -> str:
    if not 0 <= denoise <= 1:
        raise InvalidParameter(f"denoise {denoise}: must be from 0 to 1")
    try:
        return name_denoised(settings, scale, model, denoise)
    except ModelRefused as error:
        raise InvalidParameter(f"denoise: {error}") from None


def upscale_any(core: Core, call: Call) -> Any:  # noqa: ANN401  (of the kind of the image)
    """Upscale the image of a call; the result is of the same kind.

    Raises:
        TypeError: the image is of no kind of `AnyImage`.
        As `Core.upscale` does otherwise.
    """
    image = call.image
    if isinstance(image, bytes | bytearray | memoryview):
        return upscale_file_bytes(core, call, decide_file_output(core, call)).data
    choice = read_options(call.output, is_file=False)
    if isinstance(image, np.ndarray):
        decoded, shape = read_array(image)
    elif isinstance(image, PillowImage.Image):
        decoded, shape = read_pillow(image)
    else:
        raise TypeError(f"{type(image).__name__} is no array, no Pillow image and no bytes")
    upscaled = core.upscale_image(
        decoded,
        call.scale,
        decide_local_output(decoded, call.scale, keeps_depth=True, choice=choice),
        model=call.model,
        on_tile=call.on_progress,
        cancellation=call.cancellation,
    )
    is_array = isinstance(image, np.ndarray)
    return shape.restore(upscaled) if is_array else write_pillow(upscaled, shape)


def decide_file_output(core: Core, call: Call) -> OutputSpec:
    """Decide the result of a call whose image is a file's bytes, by the file's header."""
    choice = read_options(call.output, is_file=True)
    header = read_header(bytes(call.image), core.settings.formats)
    keeps_depth = core.settings.deep_png
    return decide_local_output(header, call.scale, keeps_depth=keeps_depth, choice=choice)


def name_result_file(source: Path, target: Path, scale: int, output: OutputSpec) -> Path:
    """Return the path of a file's result: `target`, or NAME-x4.jpg in it where it is a folder.

    Raises:
        InvalidParameter: the name of `target` does not end as the format of the result does.
    """
    if target.is_dir():
        return target / f"{source.stem}-x{scale}.{output.suffix}"
    if target.suffix.lower().replace(".jpeg", ".jpg") != f".{output.suffix}":
        raise InvalidParameter(
            f"the result of {source.name} is a {output.format}, not {target.name}"
        )
    return target


def upscale_file_bytes(core: Core, call: Call, output: OutputSpec) -> Result:
    """Upscale the bytes of a file to the result that was decided for it."""
    return core.upscale(
        bytes(call.image),
        call.scale,
        model=call.model,
        on_tile=call.on_progress,
        cancellation=call.cancellation,
        output=output,
    )
