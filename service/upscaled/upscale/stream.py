"""The stream of one image's windows to the device, and of their results back, in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Final

from upscaled.errors import engine_errors
from upscaled.upscale.cancellation import Cancelled
from upscaled.upscale.fair_queue import USUAL_S_PER_PX, FairQueue, Finish, ImageQueue, TileRequest
from upscaled_models.backends.base import Engine, Window, most_windows

BATCHES_AHEAD: Final = 3
"""Batches that an image has in flight: one that it stitches, one on the device and one that waits,
so that neither the image nor the device waits for the other."""


class Stream:
    """The windows of one image on their way through `engine`; made by `Scheduler.open_stream`.

    It is a context manager; leaving it withdraws the windows that still wait.
    """

    def __init__(
        self,
        fair_queue: FairQueue,
        engine: Engine,
        key_id: int | None = None,
        *,
        beside: "Stream | None" = None,
        s_per_px: float = USUAL_S_PER_PX,
    ) -> None:
        self.engine = engine
        self._fair_queue = fair_queue
        self._queue: ImageQueue = fair_queue.join(
            key_id, beside=None if beside is None else beside._queue
        )
        self._s_per_px = s_per_px

    @property
    def device_s(self) -> float:
        """Device seconds of this image so far: its share of each batch."""
        return self._queue.device_s

    def run(
        self, windows: Iterable[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Iterator[Window]:
        """Upscale windows lazily, in order, one result for each.

        At most `BATCHES_AHEAD` batches of them and one more are cut and not yet taken, whatever the
        image's size. For `windows`, `reduce`, `is_exact` and the results see `Engine.start`.

        Raises:
            Cancelled: `cancel` was called.
            EngineOutOfMemory: a window alone has no room; the caller may cut smaller ones.
            InternalError: the engine failed at a window of this stream.
        """
        source = iter(windows)
        window = next(source, None)
        under_way: deque[TileRequest] = deque()
        most = BATCHES_AHEAD
        try:
            while True:
                while len(under_way) < most and window is not None:
                    following = next(source, None)
                    is_last = following is None
                    request = TileRequest(
                        self._queue,
                        self.engine,
                        window,
                        reduce,
                        is_exact,
                        is_last=is_last,
                        s_per_px=self._s_per_px,
                    )
                    most = BATCHES_AHEAD * most_windows(self.engine.info, request.px)
                    self._fair_queue.put(request)
                    under_way.append(request)
                    window = following
                if not under_way:
                    return
                yield self._wait(under_way.popleft().result)
        finally:
            self._fair_queue.drop(self._queue, under_way, Cancelled())

    def cancel(self) -> None:
        """Withdraw every window that is not on the device yet; `run` then raises `Cancelled`.

        May be called from any thread, at any time.
        """
        self._fair_queue.leave(self._queue, Cancelled())

    def _wait(self, result: Future[Finish]) -> Window:
        with engine_errors():
            window = result.result()()
        if self._queue.end is not None:
            raise self._queue.end
        return window

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()
