"""Encode the pixels of a result, strip by strip, beside the work that fills the canvas."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from upscaled.image.formats.jpeg.writer import JpegWriter
from upscaled.image.formats.png.writer import PngWriter
from upscaled.image.formats.table import JPEG
from upscaled.image.types import Image

_THREADS: Final = 2
"""Strips compressed at once: what a 36-megapixel PNG needs to keep up with a fast device."""


class Encoder:
    """Encode an image strip by strip, while its pixels still come in from the top.

        with Encoder(canvas, "JPEG", jpeg_quality=95) as encoder:
            encoder.advance(rows_ready)      # as often as rows become final
            file = encoder.finish()

    The profile goes in byte for byte, with the resolution and, where the image has one, the credit;
    nothing else is written: no EXIF but the credit's, no XMP, comment or thumbnail. Leaving the
    block without `finish` drops what was not begun.
    """

    def __init__(self, image: Image, format_name: str, *, jpeg_quality: int) -> None:
        """
        Args:
            image: may hold unfinished pixels; its other parts are final.
            format_name: that of `upscaled.image.output.OutputSpec`.
            jpeg_quality: libjpeg's, 1 to 100.
        """
        is_jpeg = format_name == JPEG.name
        if is_jpeg and (image.has_alpha or image.is_deep):
            raise ValueError("JPEG holds neither alpha nor 16 bits a channel")
        self._height_px = image.height_px
        self._writer = JpegWriter(image, jpeg_quality) if is_jpeg else PngWriter(image)
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
