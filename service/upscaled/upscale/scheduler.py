"""Run the windows of all images in flight on the device, in batches.

One thread gathers windows into batches. Where the device can do two things at once, a second one,
the fast path, runs small images beside the batch that is on the device.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from upscaled.errors import InternalError
from upscaled.image.pixels import is_deep
from upscaled.upscale.fair_queue import USUAL_S_PER_PX, FairQueue, TileRequest
from upscaled.upscale.stream import Stream
from upscaled_models.backends.base import Engine, Started, Window, most_windows
from upscaled_models.errors import EngineOutOfMemory

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A finished batch: `windows` of `height_px` x `width_px` through `engine`.

    places: how many windows of that size the batch could have had. seconds: device time it took.
    """

    engine: Engine
    windows: int
    places: int
    height_px: int
    width_px: int
    seconds: float


OnBatch = Callable[[BatchDone], None]
"""Called by a thread of the device after each batch, from two of them where it can do two things at
once. It must neither block nor raise.
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Windows that the device was started on, or the error that kept it from starting."""

    requests: list[TileRequest]
    started: Started | Exception
    began_at: float
    is_crowded: bool


class Scheduler:
    """A context manager that owns a device's threads; on exit, windows that wait fail.

    One batch is started ahead of the one that is waited for, so an asynchronous device never
    idles; what is finished as soon as it is started is handed out at once.
    """

    def __init__(
        self, on_batch: OnBatch | None = None, begin: Callable[[], None] | None = None
    ) -> None:
        """
        Args:
            begin: called first in the thread of batches, not in that of small images.
        """
        self._on_batch = on_batch
        self._begin = begin
        self._fair_queue = FairQueue()
        self._max_batch_px: dict[str, int] = {}
        self._handed_out_at = 0.0
        self._in_batch: list[TileRequest] = []
        self._in_fast_path: list[TileRequest] = []
        self._threads = [
            threading.Thread(target=self._run_thread, args=arguments, name=name, daemon=True)
            for name, arguments in (
                ("device", (self._work, self._in_batch)),
                ("fast-path", (self._run_fast_path, self._in_fast_path)),
            )
        ]
        for thread in self._threads:
            thread.start()

    def open_stream(
        self,
        engine: Engine,
        key_id: int | None = None,
        *,
        beside: Stream | None = None,
        s_per_px: float = USUAL_S_PER_PX,
    ) -> Stream:
        """Open a stream of one image's windows through `engine`; streams share batches.

        Args:
            key_id: the API key whose share of the device the image uses; None: one of its own.
            beside: another stream of the same image: both use one share.
            s_per_px: seconds that the device should take for a pixel, by which its share counts.
        """
        return Stream(self._fair_queue, engine, key_id, beside=beside, s_per_px=s_per_px)

    def _run_thread(self, work: Callable[[], None], taken: list[TileRequest]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised in every image that waits or comes)
            _log.critical("the device's thread ended", exc_info=error)
            reason = InternalError(detail=f"the device's thread ended: {error!r}")
            self._fair_queue.close(reason)
            _fail(taken, reason)

    def _work(self) -> None:
        if self._begin is not None:
            self._begin()
        before: _Batch | None = None
        while True:
            requests = self._fair_queue.take(self._most, is_patient=before is None)
            if not requests and before is None:
                return
            self._in_batch[:] = [*(before.requests if before else ()), *requests]
            batch = self._start(requests, is_crowded=before is not None) if requests else None
            if before is not None:
                self._finish(before)
            before = batch
            if batch is not None and _is_over(batch):
                self._finish(batch)
                before = None

    def _run_fast_path(self) -> None:
        while (request := self._fair_queue.take_for_fast_path()) is not None:
            self._in_fast_path[:] = [request]
            began_at = time.perf_counter()
            try:
                started = _start([request], request.engine.concurrent or request.engine)
            except Exception as error:  # noqa: BLE001  (raised in the image of the window)
                _fail([request], error)
            else:
                seconds = time.perf_counter() - began_at
                self._report([request], seconds, places=1)
                _hand_over(request, started, seconds)

    def _most(self, request: TileRequest) -> int:
        """The most windows like this one that a batch may have.

        Those computed in float32 go one by one: together they would only keep others waiting.
        """
        if request.is_exact or is_deep(request.window):
            return 1
        max_px = self._max_batch_px.get(request.engine.info.model)
        most = most_windows(request.engine.info, request.px)
        return most if max_px is None else max(1, min(most, max_px // request.px))

    def _start(self, requests: list[TileRequest], *, is_crowded: bool) -> _Batch:
        began_at = time.perf_counter()
        started: Started | Exception
        try:
            started = _start(requests, requests[0].engine)
        except Exception as error:  # noqa: BLE001  (dealt with where the batch is finished)
            started = error
        return _Batch(requests, started, began_at, is_crowded)

    def _finish(self, batch: _Batch) -> None:
        try:
            if isinstance(batch.started, Exception):
                raise batch.started
            if _can_finish_in_image(batch):
                _hand_over(batch.requests[0], batch.started, self._pass_s(batch))
                return
            results = batch.started.finish()
        except Exception as error:  # noqa: BLE001  (raised in the image of each window)
            self._try_again(batch.requests, error, is_crowded=batch.is_crowded)
        else:
            self._hand_out(batch, results)

    def _try_again(
        self, requests: list[TileRequest], error: Exception, *, is_crowded: bool
    ) -> None:
        """Run smaller batches after a failed one, so that no image fails for another's window."""
        is_full = isinstance(error, EngineOutOfMemory)
        if len(requests) == 1 and not (is_full and is_crowded):
            _fail(requests, error)
            return
        size = 1
        if is_full and not is_crowded:
            self._note_full(requests)
            size = (len(requests) + 1) // 2
        elif is_full:
            size = len(requests)  # it may fit once the batch before it is done
        for at in range(0, len(requests), size):
            self._finish(self._start(requests[at : at + size], is_crowded=False))

    def _note_full(self, requests: Sequence[TileRequest]) -> None:
        key = requests[0].engine.info.model
        max_px = sum(request.px for request in requests) // 2
        max_px = min(self._max_batch_px.get(key, max_px), max_px)
        _log.warning("%s: batches of %d px from now on", requests[0].engine.info.model, max_px)
        self._max_batch_px[key] = max_px

    def _hand_out(self, batch: _Batch, results: list[Window]) -> None:
        share_s = self._pass_s(batch) / len(batch.requests)
        for request, result in zip(batch.requests, results, strict=True):
            request.queue.device_s += share_s
            request.result.set_result(partial(_identity, result))

    def _pass_s(self, batch: _Batch) -> float:
        """Measure and report the device seconds of this batch alone."""
        now = time.perf_counter()
        seconds = now - max(batch.began_at, self._handed_out_at)
        self._handed_out_at = now
        self._report(batch.requests, seconds, places=self._most(batch.requests[0]))
        return seconds

    def _report(self, requests: Sequence[TileRequest], seconds: float, *, places: int) -> None:
        if self._on_batch is None:
            return
        first = requests[0]
        height_px, width_px = first.window.shape[:2]
        places = max(places, len(requests))
        self._on_batch(BatchDone(first.engine, len(requests), places, height_px, width_px, seconds))

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._fair_queue.close(InternalError(detail="the device's thread was stopped"))
        for thread in self._threads:
            thread.join()


def _start(requests: Sequence[TileRequest], engine: Engine) -> Started:
    windows = [request.window for request in requests]
    return engine.start(windows, requests[0].reduce, is_exact=requests[0].is_exact)


def _can_finish_in_image(batch: _Batch) -> bool:
    """Whether the batch is one window on a CPU, whose own image can do what is left of it."""
    return (
        len(batch.requests) == 1
        and batch.requests[0].engine.concurrent is not None
        and _is_over(batch)
    )


def _hand_over(request: TileRequest, started: Started, device_s: float) -> None:
    """Let the image of a window finish it in its own thread, so that the device goes on.

    The image that finishes it drops `started`, although others may still hold `request`.
    """
    request.queue.device_s += device_s
    rest = [started]
    request.result.set_result(lambda: rest.pop().finish()[0])


def _identity(window: Window) -> Window:
    return window


def _fail(requests: Sequence[TileRequest], reason: Exception) -> None:
    for request in requests:
        if not request.result.done():
            request.result.set_exception(reason)


def _is_over(batch: _Batch) -> bool:
    return isinstance(batch.started, Exception) or batch.started.is_done
