"""Encode the pixels of a result, strip by strip, beside the work that fills the canvas."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from upscaled.image.formats.table import FORMATS
from upscaled.image.output import OutputSpec
from upscaled.image.types import Image

_THREADS: Final = 2
"""Strips compressed at once: what a 36-megapixel PNG needs to keep up with a fast device."""


class Encoder:
    """Encode an image strip by strip, while its lower rows are still being computed.

        with Encoder(canvas, "JPEG", quality=95) as encoder:
            encoder.advance(rows_ready)      # as often as rows become final
            file = encoder.finish()

    The profile goes in byte for byte, with the resolution and, where the image has one, the credit,
    or the metadata that are kept; nothing else is written: no comment, no thumbnail. Leaving the
    block without `finish` drops what was not begun.
    """

    def __init__(self, image: Image, format_name: str, *, quality: int) -> None:
        """Prepare to encode an image; ValueError where its format does not hold its depth.

        Args:
            image: may hold unfinished pixels; its other parts are final.
            format_name: that of `upscaled.image.output.OutputSpec`.
            quality: the encoder's, 1 to 100; without meaning for a PNG.
        """
        self._height_px = image.height_px
        self._writer = FORMATS[format_name].open_writer(image, quality)
        self._strips: list[Future[bytes]] = []
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="encode")

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def advance(self, rows_ready: int) -> None:
        """Begin every strip above row `rows_ready` in the background; never waits.

        These rows must not change any more.
        """
        strip_px, compress = self._writer.strip_px, self._writer.compress
        while (top := len(self._strips) * strip_px) < self._height_px:
            bottom = min(top + strip_px, self._height_px)
            if bottom > rows_ready:
                return
            self._strips.append(self._pool.submit(compress, top, bottom))

    def finish(self) -> bytes:
        """Return the file, once all pixels are final; raises what compressing raised."""
        self.advance(self._height_px)
        return self._writer.join([strip.result() for strip in self._strips])


class OverlappedEncoder:
    """Encodes the result of an upscale while its rows are computed.

    Where the device ran out of memory the image is computed again in smaller windows, as another
    object: it is then encoded again from its first row.
    """

    def __init__(self, output: OutputSpec, jpeg_quality: int) -> None:
        """Encode as `output` says; its quality is `jpeg_quality` where neither sets one."""
        self._output = output
        usual = FORMATS[output.format].usual_quality or jpeg_quality
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
        if not self._output.encoder_bytes:  # else `finish` encodes, which needs much memory
            self._encoder.advance(rows_ready)

    def finish(self) -> tuple[Image, bytes]:
        """Return the last image that `advance` was called with, and its file."""
        if self._image is None or self._encoder is None:
            raise ValueError("finished before any row was ready")
        return self._image, self._encoder.finish()
