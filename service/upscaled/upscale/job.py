"""One picture from decoded pixels to upscaled ones, and from encoded source to encoded result."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from upscaled.config import MAX_OUTPUT_SIDE_PX, Settings
from upscaled.image.decode import decode_file
from upscaled.image.encode import Encoder
from upscaled.image.output import OutputSpec, decide_output
from upscaled.image.pixels import Pixels, rounded
from upscaled.image.types import Image
from upscaled.upscale.loop import OnRows, OnTile, upscale
from upscaled.upscale.post_process.steps import choose_post_processing
from upscaled.upscale.post_process.strips import split_into_strips
from upscaled.upscale.post_process.tempering import Tempering
from upscaled.upscale.result import Result, Timings
from upscaled.upscale.stream import Stream

STRIPS_PER_WINDOW: Final = 8
"""Strips of a window that are post-processed at once, where cores are free for it."""

Decode = Callable[[bytes], Image]


@dataclass(frozen=True, slots=True)
class ImageStreams:
    """The streams of windows that one picture puts through networks.

    stream: through the network that upscales it. faithful: through the one that its result is
    tempered with, by `tempering`; None where it is not tempered.
    """

    stream: Stream
    faithful: Stream | None = None
    tempering: Tempering | None = None

    @property
    def all(self) -> tuple[Stream, ...]:
        return (self.stream,) if self.faithful is None else (self.stream, self.faithful)


OpenStreams = Callable[[Image, int], AbstractContextManager[ImageStreams]]
"""Opens the streams of one picture, given its pixels and the scale it is computed at."""


@dataclass(frozen=True, slots=True)
class UpscaledImage:
    """Upscaled pixels that are not encoded yet, and how they were made; fields as of `Result`."""

    image: Image
    model: str
    label: str
    tempered_with: str
    device_s: float


def run_job(
    source: bytes,
    scale: int,
    open_streams: OpenStreams,
    settings: Settings,
    on_tile: OnTile | None,
    *,
    output: OutputSpec | None = None,
    decode: Decode = decode_file,
    strips_pool: ThreadPoolExecutor | None = None,
) -> Result:
    """Decode, upscale and encode one picture; the encoder works while rows are still computed.

    Args:
        source: the file's bytes.
        output: what the result is to be, decided from the file's header; None: as the decoded
            picture asks for, and no longer than `MAX_OUTPUT_SIDE_PX`.
        decode: makes pixels of the source; raises the refusals below.
        scale, open_streams, on_tile, strips_pool: see `upscale_image`.

    Raises:
        MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
        Cancelled: a stream was cancelled, or `on_tile` raised it.
        InternalError, EngineOutOfMemory: the network failed.
    """
    started = time.perf_counter()
    image = decode(source)
    decoded = time.perf_counter()
    if output is None:
        output = decide_output(
            image, scale, keeps_depth=settings.deep_png, max_side_px=MAX_OUTPUT_SIDE_PX
        )
    with _OverlappedEncoder(output, settings.jpeg_quality) as encoder:
        upscaled = upscale_image(
            image,
            scale,
            open_streams,
            settings,
            output,
            on_tile=on_tile,
            on_rows=encoder.on_rows,
            strips_pool=strips_pool,
        )
        computed = time.perf_counter()
        data = encoder.finish(upscaled.image)
    return Result(
        data=data,
        media_type=output.media_type,
        width_px=upscaled.image.width_px,
        height_px=upscaled.image.height_px,
        model=upscaled.model,
        label=upscaled.label,
        timings=Timings(
            decode_s=decoded - started,
            network_s=computed - decoded,
            encode_s=time.perf_counter() - computed,
            device_s=upscaled.device_s,
        ),
        tempered_with=upscaled.tempered_with,
    )


def upscale_image(
    image: Image,
    scale: int,
    open_streams: OpenStreams,
    settings: Settings,
    output: OutputSpec,
    *,
    on_tile: OnTile | None,
    on_rows: OnRows | None = None,
    strips_pool: ThreadPoolExecutor | None = None,
) -> UpscaledImage:
    """Upscale one decoded picture.

    Args:
        scale: 2 or 4.
        output: the result's depth, and its size where that is less than the scale gives.
        open_streams: chooses the models for the picture and opens its streams through them.
        on_tile, on_rows: see `upscaled.upscale.loop.upscale`; a result that is scaled down reports
            no rows.
        strips_pool: threads that post-process windows, where cores are free for it.

    Raises:
        Cancelled: a stream was cancelled, or `on_tile` raised it.
        InternalError, EngineOutOfMemory: the network failed.
    """
    longest_px, result_px = max(image.width_px, image.height_px), output.longest_px
    is_too_long = longest_px * scale > result_px
    run_scale = scale_to_run(longest_px, scale, result_px)
    image = image if output.is_deep else rounded(image)
    with open_streams(image, run_scale) as streams:
        engine, faithful = streams.stream.engine, streams.faithful
        steps = choose_post_processing(engine.info.spec, settings, streams.tempering)
        if strips_pool is not None:
            steps = split_into_strips(steps, strips_pool, STRIPS_PER_WINDOW)
        result = upscale(
            _with_metadata_of_result(image, result_px / longest_px, settings),
            run_scale,
            streams.stream,
            on_tile=on_tile,
            on_rows=None if is_too_long else on_rows,
            post_processing=steps,
            faithful=faithful,
        )
        return UpscaledImage(
            image=fit(result, result_px) if is_too_long else result,
            model=engine.info.model,
            label=engine.info.label,
            tempered_with="" if faithful is None else faithful.engine.info.model,
            device_s=sum(each.device_s for each in streams.all),
        )


def scale_to_run(longest_px: int, scale: int, max_side_px: int) -> int:
    """The scale to compute at: `scale`, or 2 where that is already as large as is allowed."""
    return 2 if scale > 2 and longest_px * 2 >= max_side_px else scale


def fit(image: Image, max_side_px: int) -> Image:
    """The image averaged down so that its longer side is `max_side_px`, its shape kept."""
    longest_px = max(image.width_px, image.height_px)
    size = (
        max(1, round(image.width_px * max_side_px / longest_px)),
        max(1, round(image.height_px * max_side_px / longest_px)),
    )
    return replace(
        image,
        rgb=_average_down(image.rgb, size),
        alpha=None if image.alpha is None else _average_down(image.alpha, size),
    )


def _average_down(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def _with_metadata_of_result(image: Image, gain: float, settings: Settings) -> Image:
    """The image with its result's resolution, as large on paper, and the credit if it is kept."""
    return replace(
        image,
        dpi=(image.dpi[0] * gain, image.dpi[1] * gain) if image.dpi else None,
        credit=image.credit if settings.keep_copyright else None,
    )


class _OverlappedEncoder:
    """Encodes a result while its rows come in.

    A picture that is computed again, in smaller windows, is encoded again from its first row.
    """

    def __init__(self, output: OutputSpec, jpeg_quality: int) -> None:
        self._output = output
        self._jpeg_quality = jpeg_quality
        self._image: Image | None = None
        self._encoder: Encoder | None = None
        self._open = ExitStack()

    def __enter__(self) -> "_OverlappedEncoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def on_rows(self, image: Image, rows_ready: int) -> None:
        self._encoder_of(image).advance(rows_ready)

    def finish(self, image: Image) -> bytes:
        """Finish the file of the result, whose pixels are the ones that came in, if any did."""
        begun = self._image
        same = begun is not None and begun.rgb is image.rgb
        encoder = self._encoder_of(begun if same and begun is not None else image)
        return encoder.finish()

    def _encoder_of(self, image: Image) -> Encoder:
        if self._encoder is None or self._image is not image:
            self._open.close()
            self._image = image
            self._encoder = Encoder(image, self._output.format, jpeg_quality=self._jpeg_quality)
            self._open.enter_context(self._encoder)
        return self._encoder
