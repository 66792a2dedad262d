"""One image from encoded source to encoded result."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Final

from upscaled.config import MAX_OUTPUT_SIDE_PX, Settings
from upscaled.image.decode import decode_file
from upscaled.image.encode import Encoder
from upscaled.image.output import OutputSpec, decide_output
from upscaled.image.pixels import rounded
from upscaled.image.types import Image
from upscaled.upscale.fit import fit, scale_to_run
from upscaled.upscale.loop import OnTile, ignore_rows, upscale
from upscaled.upscale.post_process.steps import choose_post_processing
from upscaled.upscale.post_process.strips import spread
from upscaled.upscale.post_process.tempering import Tempering
from upscaled.upscale.result import Result, Timings
from upscaled.upscale.stream import Stream

STRIPS_PER_WINDOW: Final = 8
"""Of a window, looked after at once."""

Decode = Callable[[bytes], Image]


@dataclass(frozen=True, slots=True)
class ImageStreams:
    """The streams of windows that one image puts through networks.

    stream: through the network that upscales it. faithful: through the one that its result is
    tempered with, by `tempering`; None where it is not tempered.
    """

    stream: Stream
    faithful: Stream | None = None
    tempering: Tempering | None = None

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (self.stream,) if self.faithful is None else (self.stream, self.faithful)


OpenStreams = Callable[[bytes, Image, int], AbstractContextManager[ImageStreams]]
"""Opens the way of one image, given its file, its pixels and the scale it is computed at."""


def ignore_tile(done: int, total: int) -> None:
    """The `on_tile` of who wants the result only."""


def run_job(
    source: bytes,
    scale: int,
    open_streams: OpenStreams,
    settings: Settings,
    on_tile: OnTile,
    *,
    output: OutputSpec | None = None,
    decode: Decode = decode_file,
    strips_pool: ThreadPoolExecutor | None = None,
) -> Result:
    """Decode, upscale and encode one image.

    Args:
        source: a JPEG, PNG or WebP file.
        scale: 2 or 4.
        open_streams: chooses and opens what the image goes through.
        on_tile: see `upscaled.upscale.loop.upscale`.
        output: what the result is to be, decided from the file's header; None: as the decoded
            picture asks for, and no longer than `MAX_OUTPUT_SIDE_PX`.
        decode: what makes pixels of the source; raises the refusals below.
        strips_pool: threads that look after results, where cores have nothing better to do.

    Raises:
        MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
        Cancelled: the stream was cancelled, or `on_tile` raised it.
        InternalError, EngineOutOfMemory: the network failed.
    """
    started = time.perf_counter()
    image = decode(source)
    decoded = time.perf_counter()
    if output is None:
        output = decide_output(
            image, scale, keeps_depth=settings.deep_png, max_side_px=MAX_OUTPUT_SIDE_PX
        )
    longest_px, result_px = max(image.width_px, image.height_px), output.longest_px
    is_too_long = longest_px * scale > result_px
    image = _with_what_goes_on(image, output, result_px / longest_px, settings)
    run_scale = scale_to_run(longest_px, scale, result_px)
    with (
        _Beside(output, settings.jpeg_quality) as beside,
        open_streams(source, image, run_scale) as way,
    ):
        stream, faithful = way.stream, way.faithful
        care = choose_post_processing(stream.engine.info.spec, settings, way.tempering)
        if strips_pool is not None:
            care = spread(care, strips_pool, STRIPS_PER_WINDOW)
        on_rows = ignore_rows if is_too_long else beside.on_rows
        upscaled = upscale(
            image, run_scale, stream, on_tile=on_tile, on_rows=on_rows, care=care, faithful=faithful
        )
        if is_too_long:
            upscaled = fit(upscaled, result_px)
        computed = time.perf_counter()
        data = beside.finish(upscaled)
        timings = Timings(
            decode_s=decoded - started,
            network_s=computed - decoded,
            encode_s=time.perf_counter() - computed,
            device_s=sum(each.device_s for each in way.streams),
        )
    return Result(
        data=data,
        media_type=output.media_type,
        width_px=upscaled.width_px,
        height_px=upscaled.height_px,
        model=stream.engine.info.model,
        label=stream.engine.info.label,
        timings=timings,
        tempered_with="" if faithful is None else faithful.engine.info.model,
    )


def _with_what_goes_on(image: Image, output: OutputSpec, gain: float, settings: Settings) -> Image:
    """The image as its result describes itself: as large on paper, and with its credit if asked
    for; in 16 bits a channel where its result has them.
    """
    if not output.is_deep:
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

    def __init__(self, output: OutputSpec, jpeg_quality: int) -> None:
        self._output = output
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

    def finish(self, image: Image) -> bytes:
        """The file of the result, whose pixels are the ones that came in, if any did."""
        begun = self._image
        encoder = self._of(begun if begun is not None and begun.rgb is image.rgb else image)
        return encoder.finish()

    def _of(self, image: Image) -> Encoder:
        if self._encoder is None or self._image is not image:
            self._open.close()
            self._image = image
            self._encoder = Encoder(image, self._output.format, jpeg_quality=self._jpeg_quality)
            self._open.enter_context(self._encoder)
        return self._encoder
