"""Encode the pixels of a result, strip by strip, beside the work that fills the canvas."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from upscaled.image.formats.jpeg.writer import JpegWriter
from upscaled.image.formats.png.writer import PngWriter
from upscaled.image.formats.table import FORMATS, JPEG
from upscaled.image.output import choose_format
from upscaled.image.types import Image

THREADS = 2
"""Strips compressed at once: what a 36-megapixel PNG needs to keep up with a fast device."""


class _Strips:
    """Compress the strips of a canvas, each compressed alone as soon as its rows are final.

        with _Strips(height_px, 64, compress) as strips:
            strips.advance(100)              # rows 0 to 99 will not change any more
            pieces = strips.finish()         # all rows are final

    Leaving the block without `finish` drops what was not begun.
    """

    def __init__(
        self, height_px: int, strip_px: int, compress: Callable[[int, int], bytes]
    ) -> None:
        """`compress` makes bytes of rows `top` to `bottom`, end excluded; it runs in threads."""
        self._height_px = height_px
        self._strip_px = strip_px
        self._compress = compress
        self._pieces: list[Future[bytes]] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="encode")

    def __enter__(self) -> "_Strips":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def advance(self, rows_ready: int) -> None:
        """Begin every strip above row `rows_ready` that is not begun yet; never waits."""
        while (top := len(self._pieces) * self._strip_px) < self._height_px:
            bottom = min(top + self._strip_px, self._height_px)
            if bottom > rows_ready:
                return
            self._pieces.append(self._pool.submit(self._compress, top, bottom))

    def finish(self) -> list[bytes]:
        """All strips in order; raises what compressing raised."""
        self.advance(self._height_px)
        return [piece.result() for piece in self._pieces]


class Encoder:
    """Encodes an image while its pixels still come in from the top.

        with Encoder(canvas, "JPEG", jpeg_quality=95) as encoder:
            encoder.advance(rows_ready)      # as often as rows become final
            file = encoder.finish()

    The profile goes in byte for byte, with the resolution and, where the image has one, the credit;
    nothing else is written: no EXIF but the credit's, no XMP, comment or thumbnail.
    """

    def __init__(self, image: Image, format_name: str, *, jpeg_quality: int) -> None:
        """
        Args:
            image: may hold unfinished pixels; its other parts are final.
            format_name: as of `upscaled.image.output.choose_format`.
            jpeg_quality: libjpeg's, 1 to 100.
        """
        is_jpeg = format_name == JPEG.name
        if is_jpeg and (image.has_alpha or image.is_deep):
            raise ValueError("JPEG holds neither alpha nor 16 bits a channel")
        self._writer = JpegWriter(image, jpeg_quality) if is_jpeg else PngWriter(image)
        # Not a method of this class: by a cycle of references the canvas would outlive its use.
        compress = self._writer.compress
        self._strips = _Strips(image.height_px, self._writer.strip_px, compress)

    def __enter__(self) -> "Encoder":
        self._strips.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._strips.__exit__(*exception)

    def advance(self, rows_ready: int) -> None:
        """Compress rows above `rows_ready` in the background; they must not change any more."""
        self._strips.advance(rows_ready)

    def finish(self) -> bytes:
        """The file; all pixels are final."""
        return self._writer.join(self._strips.finish())


def encode(image: Image, *, jpeg_quality: int) -> tuple[bytes, str]:
    """Encode a finished image as a result; returns the file and its media type."""
    name = choose_format(has_alpha=image.has_alpha, is_deep=image.is_deep)
    with Encoder(image, name, jpeg_quality=jpeg_quality) as encoder:
        return encoder.finish(), FORMATS[name].media_type
