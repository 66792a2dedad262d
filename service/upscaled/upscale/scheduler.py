"""The threads that use the device: one gathers windows of all images under way into batches, and
where the device can do two things at once, another takes small images past what is under way.
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
from upscaled.upscale.lane import Lane
from upscaled.upscale.turns import USUAL_S_PER_PX, Ask, Turns
from upscaled_models.backends.base import Engine, EngineOutOfMemory, Started, Window, most_windows

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
"""Called by a thread of the device after each batch, from two of them where it can do two things at
once. It must neither block nor raise.
"""


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
    """A context that owns a device's threads; what still waits when it is left ends with an error.

    One batch is started ahead of the one that is waited for, so an asynchronous device never
    idles; what is finished as soon as it is started is handed out at once.
    """

    def __init__(
        self, on_batch: OnBatch = ignore_batch, begin: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            begin: called first in the thread of batches, not in that of small images.
        """
        self._on_batch = on_batch
        self._begin = begin
        self._turns = Turns()
        self._room_px: dict[str, int] = {}
        self._handed_out_at = 0.0
        self._taken: list[Ask] = []
        self._taken_aside: list[Ask] = []
        self._threads = [
            threading.Thread(target=self._live, args=arguments, name=name, daemon=True)
            for name, arguments in (
                ("device", (self._work, self._taken)),
                ("aside", (self._work_aside, self._taken_aside)),
            )
        ]
        for thread in self._threads:
            thread.start()

    def open_lane(
        self,
        engine: Engine,
        key_id: int | None = None,
        *,
        beside: Lane | None = None,
        s_per_px: float = USUAL_S_PER_PX,
    ) -> Lane:
        """A way through `engine` for one image; its windows share batches with other lanes'.

        Args:
            key_id: the API key whose share of the device the image uses; None: one of its own.
            beside: another lane of the same image: both use one share.
            s_per_px: seconds that the device should take for a pixel, by which its share counts.
        """
        return Lane(self._turns, engine, key_id, beside=beside, s_per_px=s_per_px)

    def _live(self, work: Callable[[], None], taken: list[Ask]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (told to everyone who waits or will ask)
            _log.critical("the device's thread ended", exc_info=error)
            reason = InternalError(detail=f"the device's thread ended: {error!r}")
            self._turns.close(reason)
            _fail(taken, reason)

    def _work(self) -> None:
        self._begin()
        before: _Batch | None = None
        while True:
            asks = self._turns.take(self._most, is_patient=before is None)
            if not asks and before is None:
                return
            self._taken[:] = [*(before.asks if before else ()), *asks]
            batch = self._start(asks, is_crowded=before is not None) if asks else None
            if before is not None:
                self._finish(before)
            before = batch
            if batch is not None and _is_over(batch):
                self._finish(batch)
                before = None

    def _work_aside(self) -> None:
        while (ask := self._turns.take_aside()) is not None:
            self._taken_aside[:] = [ask]
            began_at = time.perf_counter()
            try:
                started = _start([ask], ask.engine.aside or ask.engine)
            except Exception as error:  # noqa: BLE001  (its own image is told)
                _fail([ask], error)
            else:
                seconds = time.perf_counter() - began_at
                self._tell([ask], seconds, places=1)
                _hand_over(ask, started, seconds)

    def _most(self, ask: Ask) -> int:
        """How many windows like this one a batch may have.

        Those computed in float32 go one by one: together they would only keep others waiting.
        """
        if ask.is_exact or is_deep(ask.window):
            return 1
        room_px = self._room_px.get(ask.engine.model)
        most = most_windows(ask.engine, ask.px)
        return most if room_px is None else max(1, min(most, room_px // ask.px))

    def _start(self, asks: list[Ask], *, is_crowded: bool) -> _Batch:
        began_at = time.perf_counter()
        started: Started | Exception
        try:
            started = _start(asks, asks[0].engine)
        except Exception as error:  # noqa: BLE001  (dealt with where the batch is finished)
            started = error
        return _Batch(asks, started, began_at, is_crowded)

    def _finish(self, batch: _Batch) -> None:
        try:
            if isinstance(batch.started, Exception):
                raise batch.started
            if _can_finish_elsewhere(batch):
                _hand_over(batch.asks[0], batch.started, self._pass_s(batch))
                return
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
        key = asks[0].engine.model
        room_px = sum(ask.px for ask in asks) // 2
        room_px = min(self._room_px.get(key, room_px), room_px)
        _log.warning("%s: batches of %d px from now on", asks[0].engine.model, room_px)
        self._room_px[key] = room_px

    def _hand_out(self, batch: _Batch, results: list[Window]) -> None:
        share_s = self._pass_s(batch) / len(batch.asks)
        for ask, result in zip(batch.asks, results, strict=True):
            ask.queue.device_s += share_s
            ask.result.set_result(partial(_same, result))

    def _pass_s(self, batch: _Batch) -> float:
        """Seconds that the device gave to this batch alone."""
        now = time.perf_counter()
        seconds = now - max(batch.began_at, self._handed_out_at)
        self._handed_out_at = now
        self._tell(batch.asks, seconds, places=self._most(batch.asks[0]))
        return seconds

    def _tell(self, asks: Sequence[Ask], seconds: float, *, places: int) -> None:
        first = asks[0]
        height_px, width_px = first.window.shape[:2]
        places = max(places, len(asks))
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
        for thread in self._threads:
            thread.join()


def _start(asks: Sequence[Ask], engine: Engine) -> Started:
    windows = [ask.window for ask in asks]
    return engine.start(windows, asks[0].reduce, is_exact=asks[0].is_exact)


def _can_finish_elsewhere(batch: _Batch) -> bool:
    """A processor needs no thread of its own for what is left, and one window has one image."""
    return len(batch.asks) == 1 and batch.asks[0].engine.aside is not None and _is_over(batch)


def _hand_over(ask: Ask, started: Started, device_s: float) -> None:
    """Let a window's own image finish it, so that the device goes on meanwhile.

    Who finishes takes it away: what is left of `started` goes then, though others still hold `ask`.
    """
    ask.queue.device_s += device_s
    rest = [started]
    ask.result.set_result(lambda: rest.pop().finish()[0])


def _same(window: Window) -> Window:
    return window


def _fail(asks: Sequence[Ask], reason: Exception) -> None:
    for ask in asks:
        if not ask.result.done():
            ask.result.set_exception(reason)


def _is_over(batch: _Batch) -> bool:
    return isinstance(batch.started, Exception) or batch.started.is_done
