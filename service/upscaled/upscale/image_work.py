"""Work on one image between its decoded pixels and its encoded result."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from upscaled.config import Settings
from upscaled.image.averaging import average_down, average_light
from upscaled.image.encode import Encoder
from upscaled.image.formats.table import FORMATS
from upscaled.image.output import OutputSpec
from upscaled.image.pixels import rounded
from upscaled.image.types import Image
from upscaled.upscale.loop import TilesDone, upscale_by_tiles
from upscaled.upscale.post_process.steps import choose_post_processing
from upscaled.upscale.post_process.tempering import Tempering
from upscaled.upscale.stream import Stream


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
    """Upscale one decoded image to what its result is to be.

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
    """Average an image down to the size of the result."""
    size = (output.width_px, output.height_px)
    return replace(
        image,
        rgb=(average_light if output.is_size_chosen else average_down)(image.rgb, size),
        alpha=None if image.alpha is None else average_down(image.alpha, size),
    )


class OverlappedEncoder:
    """Encodes a result while its rows come in.

    An image that is computed again, in smaller windows, is encoded again from its first row.
    """

    def __init__(self, output: OutputSpec, settings: Settings) -> None:
        self._output = output
        usual = FORMATS[output.format].usual_quality or settings.jpeg_quality
        self._quality = output.quality or usual
        self._image: Image | None = None
        self._encoder: Encoder | None = None
        self._open = ExitStack()

    def __enter__(self) -> "OverlappedEncoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def advance(self, image: Image, rows_ready: int) -> None:
        """Encode the rows of a result that are final, where its format allows; never waits."""
        if self._encoder is None or self._image is not image:
            self._open.close()
            self._image = image
            self._encoder = Encoder(image, self._output.format, quality=self._quality)
            self._open.enter_context(self._encoder)
        if not self._output.encoder_bytes:  # memory that `finish` is to be called with
            self._encoder.advance(rows_ready)

    def finish(self) -> tuple[Image, bytes]:
        """Return the result whose last rows came in, and its file."""
        if self._image is None or self._encoder is None:
            raise ValueError("no result has come in")
        return self._image, self._encoder.finish()


def _with_metadata_of_result(image: Image, output: OutputSpec, settings: Settings) -> Image:
    """Return the image with its result's resolution, as large on paper, and a kept credit."""
    gain = output.longest_px / max(image.width_px, image.height_px)
    return replace(
        image,
        dpi=(image.dpi[0] * gain, image.dpi[1] * gain) if image.dpi else None,
        credit=image.credit if settings.keep_copyright else None,
    )
