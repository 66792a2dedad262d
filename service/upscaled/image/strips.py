"""A file made strip by strip, beside the work that fills the canvas."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

THREADS = 2
"""Strips compressed at once: what a 36-megapixel PNG needs to keep up with a fast device."""


class Strips:
    """Strips of a canvas, each compressed alone as soon as its rows are final.

        with Strips(height_px, 64, compress) as strips:
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

    def __enter__(self) -> "Strips":
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
