"""Work on one image between its decoded pixels and its encoded result."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.config import Settings
from upscaled.image.output import OutputSpec
from upscaled.image.pixels import Pixels, rounded
from upscaled.image.types import Image
from upscaled.upscale.loop import TilesDone, upscale_by_tiles
from upscaled.upscale.post_process.steps import choose_post_processing
from upscaled.upscale.post_process.tempering import Tempering
from upscaled.upscale.stream import Stream

_LINEAR_STEPS: Final = 65_535
_TOE_LEVEL, _TOE_LIGHT, _TOE_SLOPE = 0.04045, 0.0031308, 12.92
_OFFSET, _GAMMA = 0.055, 2.4


@dataclass(frozen=True, slots=True)
class ImageStreams:
    """The streams of windows that one image puts through networks.

    stream: to the network that upscales it. faithful: to the network that its result is tempered
    with, by `tempering`; None where it is not tempered.
    """

    stream: Stream
    faithful: Stream | None = None
    tempering: Tempering | None = None

    @property
    def all(self) -> tuple[Stream, ...]:
        return (self.stream,) if self.faithful is None else (self.stream, self.faithful)


def upscale_to_output(
    image: Image,
    scale: int,
    output: OutputSpec,
    streams: ImageStreams,
    settings: Settings,
    threads: Executor | None = None,
) -> Iterator[TilesDone]:
    """Upscale one decoded image to the size and depth of `output`.

    A result that is scaled down is only yielded when it is whole. `threads` post-process strips of
    windows, where cores are free for it.

    Raises:
        Cancelled, InternalError, EngineOutOfMemory: a stream was cancelled, or the network failed.
    """
    is_too_long = max(image.width_px, image.height_px) * scale > output.longest_px
    if image.is_deep and not output.is_deep:
        image = rounded(image)
    image = _with_metadata_of_result(image, output, settings)
    steps = choose_post_processing(
        streams.stream.engine.info.spec, settings, streams.tempering, threads
    )
    run_scale = scale_to_run(image, scale, output)
    for tiles_done in upscale_by_tiles(image, run_scale, streams.stream, steps, streams.faithful):
        if tiles_done.result is None or not is_too_long:
            yield tiles_done
        elif tiles_done.done < tiles_done.total:
            yield TilesDone(tiles_done.done, tiles_done.total)
        else:
            yield replace(
                tiles_done, result=fit(tiles_done.result, output), rows_ready=output.height_px
            )


def scale_to_run(image: Image, scale: int, output: OutputSpec) -> int:
    """Return the scale to compute at: `scale`, or 2 where that is already as large as allowed."""
    longest_px = max(image.width_px, image.height_px)
    return 2 if scale > 2 and longest_px * 2 >= output.longest_px else scale


def fit(image: Image, output: OutputSpec) -> Image:
    """Average an image down to the size of the result, each source pixel weighing by its area."""
    size = (output.width_px, output.height_px)
    return replace(
        image,
        rgb=(average_light if output.is_size_chosen else average_down)(image.rgb, size),
        alpha=None if image.alpha is None else average_down(image.alpha, size),
    )


def average_down(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Average stored levels, `[H, W]` or `[H, W, 3]`, to a size (width, height)."""
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def average_light(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Average `[H, W, 3]` in linear light, by sRGB's curve, to a size (width, height).

    Fine patterns keep their brightness: black and white in turn become level 188, not 128. Each
    channel on its own, so that little memory is held.
    """
    highest = np.iinfo(rgb.dtype).max
    light = _to_light(np.linspace(0, 1, highest + 1)) * _LINEAR_STEPS
    to_light = light.astype(np.float32) if rgb.itemsize > 1 else np.rint(light).astype(np.uint16)
    result = np.empty((size[1], size[0], 3), rgb.dtype)
    for channel in range(3):
        linear = cv2.resize(to_light[rgb[..., channel]], size, interpolation=cv2.INTER_AREA)
        levels = _to_level(np.asarray(linear, np.float32) / _LINEAR_STEPS) * highest
        result[..., channel] = np.rint(levels)
    return result


def _to_light(level: NDArray[Any]) -> NDArray[Any]:
    """Convert levels of 0 to 1 to light (IEC 61966-2-1)."""
    curve = ((level + _OFFSET) / (1 + _OFFSET)) ** _GAMMA
    return np.where(level <= _TOE_LEVEL, level / _TOE_SLOPE, curve)


def _to_level(light: NDArray[Any]) -> NDArray[Any]:
    """Convert light of 0 to 1 to levels."""
    curve = (1 + _OFFSET) * light ** (1 / _GAMMA) - _OFFSET
    return np.where(light <= _TOE_LIGHT, light * _TOE_SLOPE, curve)


def _with_metadata_of_result(image: Image, output: OutputSpec, settings: Settings) -> Image:
    """Return the image with the metadata of its result: the scaled resolution, and its credit."""
    gain = output.longest_px / max(image.width_px, image.height_px)
    return replace(
        image,
        dpi=(image.dpi[0] * gain, image.dpi[1] * gain) if image.dpi else None,
        credit=image.credit if settings.keep_copyright else None,
    )
