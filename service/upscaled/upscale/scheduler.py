"""Run the windows of all images in flight on the device, in batches.

One thread gathers windows into batches. Where the device can do two things at once, a second one,
the fast path, runs small images beside the batch that is on the device.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.process.confinement import lower_priority
from upscaled.upscale.stream import Stream
from upscaled.upscale.tile_queue import TileQueue
from upscaled.upscale.tile_request import USUAL_S_PER_PX, TileRequest, TileResult
from upscaled_models.backends.base import Computed, Engine, Started, Window
from upscaled_models.errors import EngineOutOfMemory

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A finished batch: `windows` of `height_px` x `width_px` through `engine`.

    max_windows: how many windows of that size it could have had. seconds: device time it took.
    """

    engine: Engine
    windows: int
    max_windows: int
    height_px: int
    width_px: int
    seconds: float


class BatchCounter(Protocol):
    """Counts the batches of a device."""

    def count_batch(self, done: BatchDone) -> None:
        """Count a batch; must neither block nor raise.

        Called by a thread of the device, by two of them where it can do two things at once.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Windows that the device was started on.

    started: None where it could not be; then `errors` has the reason, until that is dealt with: it
    would keep the frames of its traceback. began_at: of `time.perf_counter`. is_crowded: the batch
    before it was still on the device, and in its memory.
    """

    requests: list[TileRequest]
    started: Started | None
    errors: list[Exception]
    began_at: float
    is_crowded: bool

    @property
    def is_over(self) -> bool:
        return self.started is None or self.started.is_done

    @property
    def is_finished_by_its_image(self) -> bool:
        """Return whether it is one window on a CPU, whose image can do the last step itself."""
        is_single = len(self.requests) == 1 and self.requests[0].engine.concurrent is not None
        return is_single and self.is_over


class Scheduler:
    """A context manager that owns a device's threads; on exit, windows that wait fail.

    One batch is started ahead of the one that is waited for, so an asynchronous device never
    idles; what is finished as soon as it is started is handed out at once.
    """

    def __init__(self, counter: BatchCounter | None = None, *, niceness: int = 0) -> None:
        """Start the device's threads.

        Args:
            niceness: of the thread of batches, on top of the process's own; that of small images
                has none.
        """
        self._counter = counter
        self._niceness = niceness
        self._tile_queue = TileQueue()
        self._handed_out_at = 0.0
        self._in_batch: list[TileRequest] = []
        self._in_fast_path: list[TileRequest] = []
        self._threads = (
            threading.Thread(target=self._run_batches, name="device", daemon=True),
            threading.Thread(target=self._run_fast_path, name="fast-path", daemon=True),
        )
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
            s_per_px: the expected device seconds of a pixel, by which its share is counted.
        """
        return Stream(self._tile_queue, engine, key_id, beside=beside, s_per_px=s_per_px)

    def _run_batches(self) -> None:
        with self._failing_all_on_error(self._in_batch):
            lower_priority(self._niceness)
            before: _Batch | None = None
            while True:
                self._in_batch[:] = before.requests if before else ()
                requests = self._tile_queue.next_batch(is_patient=before is None)
                if not requests and before is None:
                    return
                before = self._run_batch(requests, before)
                del requests  # while it waits for others, this thread holds no window

    def _run_batch(self, requests: list[TileRequest], before: _Batch | None) -> _Batch | None:
        """Start a batch, finish the one before it, and return the one that is on the device."""
        self._in_batch += requests
        batch = _start(requests, is_crowded=before is not None) if requests else None
        if before is not None:
            self._finish(before)
        if batch is not None and batch.is_over:
            self._finish(batch)
            return None
        return batch

    def _run_fast_path(self) -> None:
        with self._failing_all_on_error(self._in_fast_path):
            while (request := self._tile_queue.next_for_fast_path()) is not None:
                self._in_fast_path.append(request)
                self._run_small(request)
                self._in_fast_path.clear()
                del request

    def _run_small(self, request: TileRequest) -> None:
        began_at = time.perf_counter()
        try:
            started = _start_on(request.engine.concurrent or request.engine, [request])
        except Exception as error:  # noqa: BLE001  (raised in the image of the window)
            request.fail(error)
        else:
            seconds = time.perf_counter() - began_at
            self._report([request], seconds, max_windows=1)
            _hand_out(request, started, seconds)

    @contextmanager
    def _failing_all_on_error(self, taken: list[TileRequest]) -> Iterator[None]:
        """Fail every image that waits or comes with the error that ends a thread of the device."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001  (raised in every image)
            _log.critical(
                "a thread of the device crashed", exc_info=error, extra=event("device_crashed")
            )
            reason = f"the device's thread ended: {error!r}"
            self._tile_queue.close(reason)
            for request in taken:
                request.fail(InternalError(detail=reason))

    def _finish(self, batch: _Batch) -> None:
        try:
            if batch.started is None:
                raise batch.errors.pop()
            if batch.is_finished_by_its_image:
                _hand_out(batch.requests[0], batch.started, self._measure_s(batch))
                return
            results = batch.started.finish()
        except Exception as error:  # noqa: BLE001  (raised in the image of each window)
            self._try_again(batch.requests, error, is_crowded=batch.is_crowded)
        else:
            self._hand_out_all(batch, results)

    def _try_again(
        self, requests: list[TileRequest], error: Exception, *, is_crowded: bool
    ) -> None:
        """Run smaller batches after a failed one, so that no image fails for another's window."""
        is_full = isinstance(error, EngineOutOfMemory)
        if len(requests) == 1 and not (is_full and is_crowded):
            requests[0].fail(error)
            return
        size = 1
        if is_full and not is_crowded:
            self._limit_batches(requests)
            size = (len(requests) + 1) // 2
        elif is_full:
            size = len(requests)  # it may fit once the batch before it is done
        for at in range(0, len(requests), size):
            self._finish(_start(requests[at : at + size], is_crowded=False))

    def _limit_batches(self, requests: Sequence[TileRequest]) -> None:
        model, max_px = requests[0].engine.info.model, self._tile_queue.limit_batches(requests)
        _log.warning(
            "the device has no memory for larger batches of %s",
            model,
            extra=event("batch_limited", model=model, max_px=max_px),
        )

    def _hand_out_all(self, batch: _Batch, results: list[Window]) -> None:
        share_s = self._measure_s(batch) / len(batch.requests)
        for request, result in zip(batch.requests, results, strict=True):
            _hand_out(request, Computed([result]), share_s)

    def _measure_s(self, batch: _Batch) -> float:
        """Measure and report the device seconds of this batch alone."""
        now = time.perf_counter()
        seconds = now - max(batch.began_at, self._handed_out_at)
        self._handed_out_at = now
        most = self._tile_queue.max_windows(batch.requests[0])
        self._report(batch.requests, seconds, max_windows=most)
        return seconds

    def _report(self, requests: Sequence[TileRequest], seconds: float, *, max_windows: int) -> None:
        if self._counter is None:
            return
        count, (height_px, width_px) = len(requests), requests[0].size_px
        most = max(max_windows, count)
        self._counter.count_batch(
            BatchDone(requests[0].engine, count, most, height_px, width_px, seconds)
        )

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(self, *_: object) -> None:
        self._tile_queue.close("the device's thread was stopped")
        for thread in self._threads:
            thread.join()


def _start(requests: list[TileRequest], *, is_crowded: bool) -> _Batch:
    began_at = time.perf_counter()
    try:
        return _Batch(requests, _start_on(requests[0].engine, requests), [], began_at, is_crowded)
    except Exception as error:  # noqa: BLE001  (dealt with where the batch is finished)
        return _Batch(requests, None, [error], began_at, is_crowded)


def _start_on(engine: Engine, requests: Sequence[TileRequest]) -> Started:
    first = requests[0]
    if first.band is not None:
        return first.band.column.start(first.band, first.reduce)
    windows = [request.window for request in requests]
    return engine.start(windows, first.reduce, is_exact=first.is_exact)


def _hand_out(request: TileRequest, started: Started, device_s: float) -> None:
    """Let the image of a window finish it in its own thread, so that the device goes on."""
    request.queue.device_s += device_s
    request.result.set_result(TileResult(started))
