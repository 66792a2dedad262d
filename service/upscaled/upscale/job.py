"""One image from encoded source to encoded result."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from upscaled.config import MAX_OUTPUT_SIDE_PX, Settings
from upscaled.image.decode import decode_file
from upscaled.image.encode import Encoder
from upscaled.image.pixels import rounded
from upscaled.image.types import Image
from upscaled.upscale.check import is_believable
from upscaled.upscale.fit import fit, scale_to_run
from upscaled.upscale.lane import Lane
from upscaled.upscale.lock import LOCK_PX, lock_colours
from upscaled.upscale.loop import Care, OnTile, ignore_rows, upscale
from upscaled.upscale.result import Result, Timings
from upscaled.upscale.spread import spread
from upscaled.upscale.tempering import TEMPER_PX, Tempering, temper
from upscaled_models.registry import is_colour_exact

CARE_STRIPS: Final = 8
"""Of a window, looked after at once."""

Decode = Callable[[bytes], Image]


@dataclass(frozen=True, slots=True)
class Way:
    """What one image goes through.

    lane: its own way to the network. faithful: the way to the one that the result is tempered with,
    by `tempering`; None for none.
    """

    lane: Lane
    faithful: Lane | None = None
    tempering: Tempering | None = None

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return (self.lane,) if self.faithful is None else (self.lane, self.faithful)


OpenWay = Callable[[bytes, Image, int], AbstractContextManager[Way]]
"""Opens the way of one image, given its file, its pixels and the scale it is computed at."""


def ignore_tile(done: int, total: int) -> None:
    """The `on_tile` of who wants the result only."""


def run_job(
    source: bytes,
    scale: int,
    open_way: OpenWay,
    settings: Settings,
    on_tile: OnTile,
    *,
    decode: Decode = decode_file,
    care_pool: ThreadPoolExecutor | None = None,
    max_output_side_px: int = MAX_OUTPUT_SIDE_PX,
) -> Result:
    """Decode, upscale and encode one image.

    Args:
        source: a JPEG, PNG or WebP file.
        scale: 2 or 4; a result longer than `max_output_side_px` is scaled down to it.
        open_way: chooses and opens what the image goes through.
        on_tile: see `upscaled.upscale.loop.upscale`.
        decode: what makes pixels of the source; raises the refusals below.
        care_pool: threads that look after results, where cores have nothing better to do.

    Raises:
        MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
        Cancelled: the lane was cancelled, or `on_tile` raised it.
        InternalError, EngineOutOfMemory: the network failed.
    """
    started = time.perf_counter()
    image = decode(source)
    decoded = time.perf_counter()
    longest_px = max(image.width_px, image.height_px)
    is_too_long = longest_px * scale > max_output_side_px
    gain = max_output_side_px / longest_px if is_too_long else scale
    image = _with_what_goes_on(image, gain, settings)
    run_scale = scale_to_run(longest_px, scale, max_output_side_px)
    with _Beside(settings.jpeg_quality) as beside, open_way(source, image, run_scale) as way:
        lane, faithful = way.lane, way.faithful
        care = choose_care(lane.engine.model, settings, way.tempering)
        if care_pool is not None:
            care = spread(care, care_pool, CARE_STRIPS)
        on_rows = ignore_rows if is_too_long else beside.on_rows
        upscaled = upscale(
            image, run_scale, lane, on_tile=on_tile, on_rows=on_rows, care=care, faithful=faithful
        )
        if is_too_long:
            upscaled = fit(upscaled, max_output_side_px)
        computed = time.perf_counter()
        data, media_type = beside.finish(upscaled)
        timings = Timings(
            decode_s=decoded - started,
            network_s=computed - decoded,
            encode_s=time.perf_counter() - computed,
            device_s=sum(each.device_s for each in way.lanes),
        )
    return Result(
        data=data,
        media_type=media_type,
        width_px=upscaled.width_px,
        height_px=upscaled.height_px,
        model=lane.engine.model,
        label=lane.engine.label,
        timings=timings,
        tempered_with="" if faithful is None else faithful.engine.model,
    )


def choose_care(model: str, settings: Settings, tempering: Tempering | None = None) -> Care:
    """Check every window; correct colours: of fine patterns, and of all else where models shift it.

    What is tempered has the faithful network's colours. The setting `colour_lock` switches both
    corrections off.
    """
    care = Care(check=is_believable, corrects_patterns=settings.colour_lock)
    if tempering is not None:
        return replace(care, temper=partial(temper, tempering=tempering), temper_px=TEMPER_PX)
    if settings.colour_lock and not is_colour_exact(model):
        return replace(care, lock=lock_colours, lock_px=LOCK_PX)
    return care


def _with_what_goes_on(image: Image, gain: float, settings: Settings) -> Image:
    """The image with what its result says of itself: as large on paper, its credit if asked for; in
    16 bits a channel where its result has them.
    """
    if image.alpha is None and not settings.deep_png:
        image = rounded(image)
    return replace(
        image,
        dpi=(image.dpi[0] * gain, image.dpi[1] * gain) if image.dpi else None,
        credit=image.credit if settings.keep_copyright else None,
    )


class _Beside:
    """A result's encoder, begun when the first rows of a result come in.

    An image that is computed again, in smaller windows, begins again.
    """

    def __init__(self, jpeg_quality: int) -> None:
        self._jpeg_quality = jpeg_quality
        self._image: Image | None = None
        self._encoder: Encoder | None = None
        self._open = ExitStack()

    def __enter__(self) -> "_Beside":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def on_rows(self, image: Image, rows_ready: int) -> None:
        self._of(image).advance(rows_ready)

    def finish(self, image: Image) -> tuple[bytes, str]:
        """(file, media type) of the result, whose pixels are the ones that came in, if any did."""
        begun = self._image
        encoder = self._of(begun if begun is not None and begun.rgb is image.rgb else image)
        return encoder.finish(), encoder.media_type

    def _of(self, image: Image) -> Encoder:
        if self._encoder is None or self._image is not image:
            self._open.close()
            self._image = image
            self._encoder = Encoder(image, jpeg_quality=self._jpeg_quality)
            self._open.enter_context(self._encoder)
        return self._encoder
