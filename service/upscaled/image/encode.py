"""Encode the pixels of a result, strip by strip, beside the work that fills the canvas."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final, Protocol

from upscaled.image.formats.table import FORMATS
from upscaled.image.output import OutputSpec
from upscaled.image.types import Image

Piece = bytes | memoryview
"""Some bytes of a file, which follow those of the piece before it."""

_THREADS: Final = 2
"""Strips compressed at once: what a 36-megapixel PNG needs to keep up with a fast device."""


class FileSink(Protocol):
    """Where the pieces of one file go while it is made."""

    def write(self, piece: Piece, offset: int) -> None:
        """Take the next piece, at its offset in the file: 0 where the file is begun, also anew.

        What it raises ends the work.
        """


class Encoder:
    """Encode an image strip by strip, while its lower rows are still being computed.

        with Encoder(canvas, "JPEG", quality=95) as encoder:
            encoder.advance(rows_ready)      # as often as rows become final
            file = encoder.finish()

    The file can also be taken piece by piece: what is ready by `take_ready`, then `take_rest`.

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
        self._begun_px = 0
        self._strips: deque[Future[bytes]] = deque()
        self._pieces = self._writer.join(self._wait_for_strips())
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
        while (top := self._begun_px) < self._height_px:
            bottom = min(top + strip_px, self._height_px)
            if bottom > rows_ready:
                return
            self._strips.append(self._pool.submit(compress, top, bottom))
            self._begun_px = bottom

    def take_ready(self) -> Iterator[Piece]:
        """Yield what of the file is ready and was not yielded before; never waits.

        Raises what compressing raised, as `take_rest` and `finish` do.
        """
        while self._strips and self._strips[0].done():
            yield next(self._pieces)

    def take_rest(self) -> Iterator[Piece]:
        """Yield the rest of the file, once all pixels are final."""
        self.advance(self._height_px)
        yield from self._pieces

    def finish(self) -> bytes:
        """Return the rest of the file, once all pixels are final."""
        return b"".join(self.take_rest())

    def _wait_for_strips(self) -> Iterator[bytes]:
        """Yield all strips in order; they are not held here any longer."""
        while self._strips:
            yield self._strips.popleft().result()


class OverlappedEncoder:
    """Encodes the result of an upscale while its rows are computed.

    Where the device ran out of memory the image is computed again in smaller windows, as another
    object: it is then encoded again from its first row.
    """

    def __init__(self, output: OutputSpec, jpeg_quality: int, sink: FileSink | None = None) -> None:
        """Encode as `output` says; its quality is `jpeg_quality` where neither sets one.

        sink: gets the file as it grows, in the calls of `advance` and `finish`.
        """
        self._output = output
        self._sink = sink
        self._passed_bytes = 0
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
            self._passed_bytes = 0
            self._encoder = Encoder(image, self._output.format, quality=self._quality)
            self._open.enter_context(self._encoder)
        if not self._output.encoder_bytes:  # else `finish` encodes, which needs much memory
            self._encoder.advance(rows_ready)
            if self._sink is not None:
                self._pass_on(self._encoder.take_ready(), self._sink)

    def finish(self) -> tuple[Image, bytes]:
        """Return the last image that `advance` was called with, and its file.

        The file is empty where `sink` has got it.
        """
        if self._image is None or self._encoder is None:
            raise ValueError("finished before any row was ready")
        if self._sink is None:
            return self._image, self._encoder.finish()
        self._pass_on(self._encoder.take_rest(), self._sink)
        return self._image, b""

    def _pass_on(self, pieces: Iterable[Piece], sink: FileSink) -> None:
        for piece in pieces:
            sink.write(piece, self._passed_bytes)
            self._passed_bytes += len(piece)
