"""One image from encoded source to encoded result."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from service.config import MAX_OUTPUT_SIDE_PX, Settings
from service.image.decode import decode as decode_here
from service.image.encode import encode
from service.image.types import Image
from service.upscale.fit import fit, scale_to_run
from service.upscale.lane import Lane
from service.upscale.loop import OnTile, upscale

Decode = Callable[[bytes], Image]


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished image: the encoded file, its size, the model that made it, and where time went.

    `network_s` is the time from the decoded image to the upscaled one, in turn with other images;
    `device_s` is what this image alone had of the device.
    """

    data: bytes
    media_type: str
    width_px: int
    height_px: int
    model: str
    decode_s: float
    network_s: float
    encode_s: float
    device_s: float


def run_job(
    source: bytes,
    scale: int,
    lane: Lane,
    settings: Settings,
    on_tile: OnTile,
    *,
    decode: Decode = decode_here,
    max_output_side_px: int = MAX_OUTPUT_SIDE_PX,
) -> Finished:
    """Decode, upscale and encode one image.

    Args:
        source: a JPEG, PNG or WebP file.
        scale: 2 or 4; a result longer than `max_output_side_px` is scaled down to it.
        lane: the image's own way to the network.
        on_tile: see `service.upscale.loop.upscale`.
        decode: what makes pixels of the source; raises the refusals below.

    Raises:
        MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
        Cancelled: the lane was cancelled, or `on_tile` raised it.
        InternalError, EngineOutOfMemory: the network failed.
    """
    started = time.perf_counter()
    image = decode(source)
    decoded = time.perf_counter()
    longest_px = max(image.width_px, image.height_px)
    run_scale = scale_to_run(longest_px, scale, max_output_side_px)
    upscaled = upscale(image, run_scale, lane, on_tile=on_tile)
    if longest_px * scale > max_output_side_px:
        upscaled = fit(upscaled, max_output_side_px)
    computed = time.perf_counter()
    data, media_type = encode(upscaled, jpeg_quality=settings.jpeg_quality)
    return Finished(
        data=data,
        media_type=media_type,
        width_px=upscaled.width_px,
        height_px=upscaled.height_px,
        model=lane.engine.model,
        decode_s=decoded - started,
        network_s=computed - decoded,
        encode_s=time.perf_counter() - computed,
        device_s=lane.device_s,
    )
