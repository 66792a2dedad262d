"""Pixels to an encoded file: JPEG, or PNG where there is transparency or 16 bits a channel."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType

import cv2
import numpy as np

from upscaled.image.formats.jpeg import writer as jpeg_file
from upscaled.image.formats.png import writer as png_file
from upscaled.image.metadata import write_credit
from upscaled.image.pixels import Pixels, is_deep
from upscaled.image.types import Image

JPEG_MEDIA_TYPE = "image/jpeg"
PNG_MEDIA_TYPE = "image/png"


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    """An image's file, made while its pixels still come in from the top.

        with Encoder(canvas, jpeg_quality=95) as encoder:
            encoder.advance(rows_ready)      # as often as rows become final
            file = encoder.finish()

    Opaque images of 8 bits become JPEG without chroma subsampling, others PNG. The profile goes
    in byte for byte, with the resolution and, where the image has one, the credit; nothing else
    is written: no EXIF but the credit's, no XMP, comment or thumbnail.
    """

    def __init__(self, image: Image, *, jpeg_quality: int) -> None:
        """`image` may hold unfinished pixels; its other parts are final. Quality: 1 to 100."""
        self._image = image
        self._is_jpeg = image.alpha is None and not is_deep(image.rgb)
        # No method of ours: in a cycle of references the canvas would stay until it is looked for.
        compress = (
            partial(_compress_jpeg, image.rgb, jpeg_quality)
            if self._is_jpeg
            else partial(_compress_png, image.rgb, image.alpha)
        )
        strip_px = jpeg_file.STRIP_PX if self._is_jpeg else png_file.STRIP_PX
        self._strips = _Strips(image.height_px, strip_px, compress)

    def __enter__(self) -> "Encoder":
        self._strips.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._strips.__exit__(kind, error, trace)

    @property
    def media_type(self) -> str:
        return JPEG_MEDIA_TYPE if self._is_jpeg else PNG_MEDIA_TYPE

    def advance(self, rows_ready: int) -> None:
        """Compress rows above `rows_ready` in the background; they must not change any more."""
        self._strips.advance(rows_ready)

    def finish(self) -> bytes:
        """The file; all pixels are final."""
        image = self._image
        strips = self._strips.finish()
        exif = write_credit(image.credit) if image.credit else None
        if self._is_jpeg:
            return jpeg_file.join_strips(
                strips, image.height_px, image.width_px, icc=image.icc, exif=exif, dpi=image.dpi
            )
        return png_file.join_strips(
            strips,
            image.height_px,
            image.width_px,
            channels=3 if image.alpha is None else 4,
            depth=8 * image.rgb.itemsize,
            icc=image.icc,
            exif=exif,
            dpi=image.dpi,
        )


def _compress_jpeg(rgb: Pixels, quality: int, top: int, bottom: int) -> bytes:
    return jpeg_file.compress_strip(rgb[top:bottom].view(np.uint8), quality)


def _compress_png(rgb: Pixels, alpha: Pixels | None, top: int, bottom: int) -> bytes:
    above = max(0, top - 1)
    pixels = rgb[above:bottom]
    if alpha is not None:
        both = np.empty((*pixels.shape[:2], 4), rgb.dtype)
        cv2.mixChannels([pixels, alpha[above:bottom]], [both], [0, 0, 1, 1, 2, 2, 3, 3])
        pixels = both
    return png_file.compress_strip(pixels, top - above)


def encode(image: Image, *, jpeg_quality: int) -> tuple[bytes, str]:
    """(file, media type) of a finished image; see `Encoder`."""
    with Encoder(image, jpeg_quality=jpeg_quality) as encoder:
        return encoder.finish(), encoder.media_type
