"""Stream of one image's windows to the device, and of their results back, in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from upscaled.errors import engine_errors
from upscaled.upscale.concurrency import Cancelled
from upscaled.upscale.tile_queue import TileQueue
from upscaled.upscale.tile_request import USUAL_S_PER_PX, ImageQueue, TileRequest
from upscaled_models.backends.base import Band, Engine, Window, most_windows

BATCHES_AHEAD: Final = 3
"""Batches that an image has in flight: one that it stitches, one on the device and one that waits,
so that neither the image nor the device waits for the other."""


class Stream:
    """The windows of one image on their way through `engine`; made by `Scheduler.open_stream`.

    It is a context manager; leaving it withdraws the windows that still wait.
    """

    def __init__(
        self,
        tile_queue: TileQueue,
        engine: Engine,
        key_id: int | None = None,
        *,
        beside: "Stream | None" = None,
        s_per_px: float = USUAL_S_PER_PX,
    ) -> None:
        self.engine = engine
        self._tile_queue = tile_queue
        self._queue: ImageQueue = tile_queue.join(
            key_id, beside=None if beside is None else beside._queue
        )
        self._s_per_px = s_per_px

    @property
    def device_s(self) -> float:
        """Return the device seconds of this image so far: its share of each batch."""
        return self._queue.device_s

    def run(
        self, windows: Iterable[Window | Band], reduce: int = 1, *, is_exact: bool = False
    ) -> Iterator[Window]:
        """Upscale windows, or bands of columns, lazily, in order, one result for each.

        At most `BATCHES_AHEAD` batches of them and one more are cut and not yet computed, whatever
        the image's size. For `windows`, `reduce`, `is_exact` and the results see `Engine.start`.

        Raises:
            Cancelled: `cancel` was called.
            EngineOutOfMemory: the device has no memory for a single window; the caller may cut
                smaller ones.
            InternalError: the engine failed at a window of this stream.
        """
        source = iter(windows)
        window = next(source, None)
        in_flight: deque[TileRequest] = deque()
        most = BATCHES_AHEAD
        try:
            while True:
                while len(in_flight) < most and window is not None:
                    following = next(source, None)
                    in_flight.append(
                        self._put(window, reduce, is_exact=is_exact, is_last=following is None)
                    )
                    most = BATCHES_AHEAD * most_windows(self.engine.info, in_flight[-1].px)
                    window = following
                if not in_flight:
                    return
                yield self._wait(in_flight.popleft())
        finally:
            self._tile_queue.drop(self._queue, in_flight)

    def cancel(self) -> None:
        """Withdraw every window that is not on the device yet; `run` then raises `Cancelled`.

        May be called from any thread, at any time.
        """
        self._tile_queue.leave(self._queue)

    def _put(
        self, window: Window | Band, reduce: int, *, is_exact: bool, is_last: bool
    ) -> TileRequest:
        band = window if isinstance(window, Band) else None
        request = TileRequest(
            self._queue,
            self.engine,
            window.window if isinstance(window, Band) else window,
            reduce,
            is_exact,
            is_last=is_last,
            s_per_px=self._s_per_px,
            band=band,
        )
        self._tile_queue.put(request)
        return request

    def _wait(self, request: TileRequest) -> Window:
        with engine_errors():
            window = request.result.result().finish()
        if self._queue.is_left:
            raise Cancelled
        return window

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
