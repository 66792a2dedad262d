"""Upscale one image of any kind that the Python API accepts: an array, a picture or a file."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from upscaled.errors import InvalidParameter
from upscaled.image.formats.table import read_header
from upscaled.image.output import OutputChoice, OutputSpec
from upscaled.upscale import call_options
from upscaled.upscale.call_options import ImageOptions, Tracking
from upscaled.upscale.conversion import read_array, read_pillow, write_pillow
from upscaled.upscale.core import Core
from upscaled.upscale.result import Result, decide_local_output
from upscaled.upscale.shared_core import SharedCore

AnyImage = TypeVar("AnyImage", bytes, NDArray[np.uint8], NDArray[np.uint16], PillowImage.Image)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Python API, checked: how to upscale its images, of any kind of `AnyImage`.

    model: by its name, "" for the upscaler's own.
    """

    scale: int
    model: str
    choice: OutputChoice
    tracking: Tracking


def plan_call(core: Core, scale: int, options: ImageOptions, tracking: Tracking) -> Call:
    """Check the arguments of a call that do not depend on its image.

    Raises:
        InvalidParameter: the core was not opened for the scale, or an option is out of its range.
        TypeError: `model` is no text, or an option that there is not.
    """
    call_options.check_options(options)
    number = call_options.as_whole_number(scale)
    if number is None or number not in core.ladders:
        scales = " or ".join(map(str, core.ladders))
        raise InvalidParameter(f"scale {scale!r}: must be {scales}")
    model = call_options.name_model(options, core.settings, number)
    return Call(number, model, call_options.choose_output(options), tracking)


def upscale_any(core: Core, call: Call, image: Any) -> Any:  # noqa: ANN401  (of one kind)
    """Upscale an image as a call says; the result is of the same kind.

    Raises:
        TypeError: the image is of no kind of `AnyImage`.
        As `Core.upscale` does otherwise.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        source = bytes(image)
        return upscale_file_bytes(core, call, source, decide_file_output(core, call, source)).data
    if isinstance(image, np.ndarray):
        decoded, shape = read_array(image)
    elif isinstance(image, PillowImage.Image):
        decoded, shape = read_pillow(image)
    else:
        hint = "; for a file, use upscale_file" if isinstance(image, str | os.PathLike) else ""
        raise TypeError(f"{type(image).__name__} is no array, no Pillow image and no bytes{hint}")
    call_options.require_no_file_options(call.choice)
    upscaled = core.upscale_image(
        decoded,
        call.scale,
        decide_local_output(decoded, call.scale, keeps_depth=True, choice=call.choice),
        model=call.model,
        on_tile=call.tracking.on_progress,
        cancellation=call.tracking.cancellation,
    )
    is_array = isinstance(image, np.ndarray)
    return shape.restore(upscaled) if is_array else write_pillow(upscaled, shape)


def upscale_in_order(
    shared: SharedCore, core: Core, call: Call, images: Iterable[Any], *, return_exceptions: bool
) -> Iterator[Any]:
    """Upscale images, several at once, and yield their results in order.

    The call's `cancellation` is used when the iterator is closed before its end.

    return_exceptions: yield an image's error in its place, instead of raising it.
    """
    tasks: deque[Future[Any]] = deque()
    failures: list[Exception] = []

    def finish_first() -> object:
        try:
            return shared.wait(tasks.popleft())
        except Exception as error:
            if not return_exceptions:
                raise
            return error

    try:
        for image in _draw(images, failures):
            with shared.threads(core) as threads:
                tasks.append(threads.submit(upscale_any, core, call, image))
            if len(tasks) >= shared.max_in_flight:
                yield finish_first()
        while tasks:
            yield finish_first()
        for failure in failures:
            raise failure
    finally:
        if call.tracking.cancellation is not None:
            call.tracking.cancellation.cancel()
        for task in tasks:
            task.cancel()


def _draw(images: Iterable[Any], failures: list[Exception]) -> Iterator[Any]:
    """Yield the images, and note what they raise: the results of those before it come first."""
    try:
        yield from images
    except Exception as error:  # noqa: BLE001  (raised later)
        failures.append(error)


def decide_file_output(core: Core, call: Call, source: bytes) -> OutputSpec:
    """Decide the result of upscaling the bytes of a file, by the file's header."""
    header = read_header(source, core.settings.formats)
    keeps_depth = core.settings.deep_png
    return decide_local_output(header, call.scale, keeps_depth=keeps_depth, choice=call.choice)


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


def upscale_file_bytes(core: Core, call: Call, source: bytes, output: OutputSpec) -> Result:
    """Upscale the bytes of a file to the result that was decided for it."""
    return core.upscale(
        source,
        call.scale,
        model=call.model,
        on_tile=call.tracking.on_progress,
        cancellation=call.tracking.cancellation,
        output=output,
    )


def require_several(images: object) -> None:
    """Raise TypeError for one image, what is easily mistaken for several, or nothing of the kind.

    The rows of a picture, and the bytes of a file, would otherwise be upscaled one by one.
    """
    is_picture = isinstance(images, np.ndarray) and images.ndim < 4
    if is_picture or isinstance(images, bytes | bytearray | memoryview | str | PillowImage.Image):
        raise TypeError(
            f"{type(images).__name__} is one image: many() takes a list or another iterable of them"
        )
    if not isinstance(images, Iterable):
        raise TypeError(f"many() takes a list of images, not {type(images).__name__}")


def require_bytes(source: object) -> bytes:
    """Return the bytes of a file, or raise TypeError for an object that is none."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    raise TypeError(f"upscale_bytes() takes the bytes of a file, not {type(source).__name__}")
