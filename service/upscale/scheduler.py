"""The only thread that uses the device: it gathers windows of all images under way into batches."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from service.engine.engine import Engine, EngineOutOfMemory, Started, Window, most_windows
from service.errors import InternalError
from service.upscale.lane import Lane
from service.upscale.turns import Ask, Turns

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchDone:
    """What the device has finished at once: `windows` of `height_px` x `width_px` through `engine`.

    places: how many of that size it would have taken. seconds: how long it was at them.
    """

    engine: Engine
    windows: int
    places: int
    height_px: int
    width_px: int
    seconds: float


OnBatch = Callable[[BatchDone], None]
"""Called by the device's thread after each batch. It must neither block nor raise."""


def ignore_batch(_: BatchDone) -> None:
    """The `on_batch` of who counts nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Windows that were given to the device, or could not be."""

    asks: list[Ask]
    started: Started | Exception
    began_at: float
    is_crowded: bool


class Scheduler:
    """A context that owns one device's thread; what still waits when it is left ends with an error.

    One batch is started ahead of the one that is waited for, so an asynchronous device never
    idles; what is finished as soon as it is started is handed out at once.
    """

    def __init__(self, on_batch: OnBatch = ignore_batch) -> None:
        self._on_batch = on_batch
        self._turns = Turns()
        self._room_px: dict[int, int] = {}
        self._handed_out_at = 0.0
        self._taken: list[Ask] = []
        self._thread = threading.Thread(target=self._live, name="device", daemon=True)
        self._thread.start()

    def open_lane(self, engine: Engine) -> Lane:
        """A way through `engine` for one image; its windows share batches with other lanes'."""
        return Lane(self._turns, engine)

    def _live(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  (told to everyone who waits or will ask)
            _log.critical("the device's thread ended", exc_info=error)
            reason = InternalError(detail=f"the device's thread ended: {error!r}")
            self._turns.close(reason)
            _fail(self._taken, reason)

    def _work(self) -> None:
        before: _Batch | None = None
        while True:
            asks = self._turns.take(self._most, is_patient=before is None)
            if not asks and before is None:
                return
            self._taken = [*(before.asks if before else ()), *asks]
            batch = self._start(asks, is_crowded=before is not None) if asks else None
            if before is not None:
                self._finish(before)
            before = batch
            if batch is not None and _is_over(batch):
                self._finish(batch)
                before = None

    def _most(self, ask: Ask) -> int:
        """How many windows like this one a batch may have."""
        room_px = self._room_px.get(id(ask.engine))
        most = most_windows(ask.engine, ask.px)
        return most if room_px is None else max(1, min(most, room_px // ask.px))

    def _start(self, asks: list[Ask], *, is_crowded: bool) -> _Batch:
        began_at = time.perf_counter()
        started: Started | Exception
        try:
            started = _start(asks)
        except Exception as error:  # noqa: BLE001  (dealt with where the batch is finished)
            started = error
        return _Batch(asks, started, began_at, is_crowded)

    def _finish(self, batch: _Batch) -> None:
        try:
            if isinstance(batch.started, Exception):
                raise batch.started
            results = batch.started.finish()
        except Exception as error:  # noqa: BLE001  (each window's own image is told)
            self._try_again(batch.asks, error, is_crowded=batch.is_crowded)
        else:
            self._hand_out(batch, results)

    def _try_again(self, asks: list[Ask], error: Exception, *, is_crowded: bool) -> None:
        """Smaller batches after a failed one, so that nobody fails for another's window."""
        is_full = isinstance(error, EngineOutOfMemory)
        if len(asks) == 1 and not (is_full and is_crowded):
            _fail(asks, error)
            return
        size = 1
        if is_full and not is_crowded:
            self._note_full(asks)
            size = (len(asks) + 1) // 2
        elif is_full:
            size = len(asks)  # it may fit once the batch before it is done
        for at in range(0, len(asks), size):
            self._finish(self._start(asks[at : at + size], is_crowded=False))

    def _note_full(self, asks: Sequence[Ask]) -> None:
        room_px = sum(ask.px for ask in asks) // 2
        _log.warning("%s: batches of %d px from now on", asks[0].engine.model, room_px)
        self._room_px[id(asks[0].engine)] = room_px

    def _hand_out(self, batch: _Batch, results: list[Window]) -> None:
        now = time.perf_counter()
        seconds = now - max(batch.began_at, self._handed_out_at)
        share_s = seconds / len(batch.asks)
        self._handed_out_at = now
        self._tell(batch.asks, seconds)
        for ask, result in zip(batch.asks, results, strict=True):
            ask.queue.device_s += share_s
            ask.result.set_result(result)

    def _tell(self, asks: Sequence[Ask], seconds: float) -> None:
        first = asks[0]
        height_px, width_px = first.window.shape[:2]
        places = max(self._most(first), len(asks))
        self._on_batch(BatchDone(first.engine, len(asks), places, height_px, width_px, seconds))

    def __enter__(self) -> "Scheduler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._turns.close(InternalError(detail="the device's thread was stopped"))
        self._thread.join()


def _start(asks: Sequence[Ask]) -> Started:
    first = asks[0]
    windows = [ask.window for ask in asks]
    return first.engine.start(windows, first.reduce, is_exact=first.is_exact)


def _fail(asks: Sequence[Ask], reason: Exception) -> None:
    for ask in asks:
        if not ask.result.done():
            ask.result.set_exception(reason)


def _is_over(batch: _Batch) -> bool:
    return isinstance(batch.started, Exception) or batch.started.is_done
