"""The device's thread with many images at once: whole, in order, and none fails for another."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from tests.service.upscale.band_box_engine import BandBoxEngine
from tests.service.upscale.box_engine import BoxEngine, CountedBatches
from upscaled.errors import InternalError
from upscaled.upscale.concurrency import Cancelled
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.stream import BATCHES_AHEAD, Stream
from upscaled_models.backends.base import Band, Started, Window
from upscaled_models.errors import EngineOutOfMemory


def windows_of(count: int, side_px: int = 16, seed: int = 0) -> list[Window]:
    chance = np.random.default_rng(seed)
    return list(chance.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8))


def are_right(engine: BoxEngine, windows: list[Window], results: list[Window]) -> bool:
    expected = [engine.filter(window) for window in windows]
    return len(results) == len(expected) and all(map(np.array_equal, results, expected))


@dataclass
class Held(BoxEngine):
    """A device that stands still at its first batch until it is released."""

    is_reached: threading.Event = field(default_factory=threading.Event)
    is_released: threading.Event = field(default_factory=threading.Event)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        self.is_reached.set()
        assert self.is_released.wait(60)
        return super().start(windows, reduce, is_exact=is_exact)


@dataclass
class Alarming(BoxEngine):
    """Fails with `error` for every batch with a window of one colour in it."""

    error: BaseException = field(default_factory=lambda: ValueError("of one colour"))

    def filter(self, window: Window) -> Window:
        if window.std() == 0:
            raise self.error
        return super().filter(window)


def run_all(scheduler: Scheduler, engine: BoxEngine, windows: list[Window]) -> list[Window]:
    return run_in(scheduler.open_stream(engine), windows)


def run_in(stream: Stream, windows: list[Window], *, is_exact: bool = False) -> list[Window]:
    with stream:
        return list(stream.run(windows, is_exact=is_exact))


def run_together(
    scheduler: Scheduler, engine: Held, *images: list[Window], is_exact: bool = False
) -> list["Future[list[Window]]"]:
    """Queue the windows of all images while the device stands still, then release it."""
    run = partial(run_in, is_exact=is_exact)
    with ThreadPoolExecutor(len(images)) as pool:
        outcomes = [pool.submit(run, scheduler.open_stream(engine), images[0])]
        assert engine.is_reached.wait(60)
        outcomes += [
            pool.submit(run, scheduler.open_stream(engine), windows) for windows in images[1:]
        ]
        wait_until(lambda: count_waiting(scheduler) >= len(images) - 1)
        engine.is_released.set()
    return outcomes


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise TimeoutError


def count_waiting(scheduler: Scheduler) -> int:
    return len(scheduler._tile_queue._waiting)


def test_many_images_at_once_each_get_their_own_results_in_order() -> None:
    """The race test: shapes, batches, lengths and cancellations at random."""
    engine = BoxEngine(batch=4, radius_px=2)
    cancelled = 0

    def work(seed: int) -> bool:
        chance = random.Random(seed)
        windows = windows_of(chance.randint(1, 12), chance.choice([8, 16, 24]), seed)
        is_leaving = chance.random() < 0.3
        with scheduler.open_stream(engine) as stream:
            if is_leaving:
                threading.Timer(chance.uniform(0, 0.004), stream.cancel).start()
            try:
                results = list(stream.run(windows))
            except Cancelled:
                return True
        assert are_right(engine, windows, results)
        return False

    with Scheduler() as scheduler, ThreadPoolExecutor(12) as pool:
        for was_cancelled in pool.map(work, range(400)):
            cancelled += was_cancelled
    assert 0 < cancelled < 200
    assert max(engine.batches) > 1


def test_every_batch_is_reported_with_its_capacity_and_its_time() -> None:
    engine = Held(batch=8)
    reported = CountedBatches()
    with Scheduler(reported) as scheduler:
        run_together(scheduler, engine, *[windows_of(1)] * 5)
    assert [(done.windows, done.max_windows) for done in reported] == [(1, 8), (4, 8)]
    for done in reported:
        assert done.engine is engine
        assert (done.height_px, done.width_px) == windows_of(1)[0].shape[:2]
        assert 0 < done.seconds < 60


def test_a_batch_may_have_no_more_windows_than_the_device_had_memory_for() -> None:
    engine = BoxEngine(batch=4, room_windows=2)
    reported = CountedBatches()
    with Scheduler(reported) as scheduler:
        run_all(scheduler, engine, windows_of(9))
    assert sum(done.windows for done in reported) == 9
    assert {done.max_windows for done in reported if done.windows == 2} == {2}


def test_small_images_share_a_batch() -> None:
    engine = Held(batch=8)
    with Scheduler() as scheduler:
        run_together(scheduler, engine, *[windows_of(1)] * 9)
    assert engine.batches == [1, 8]


def test_batches_are_halved_for_good_where_the_device_is_out_of_memory() -> None:
    engine = Held(batch=8, room_windows=3)
    with Scheduler() as scheduler:
        outcomes = run_together(scheduler, engine, *[windows_of(4)] * 9)
        assert all(are_right(engine, windows_of(4), each.result()) for each in outcomes)
        tried = len(engine.seen)
        assert are_right(engine, windows_of(20), run_all(scheduler, engine, windows_of(20)))
        assert len(engine.seen) == tried + 20  # none in vain
    assert sum(engine.batches) == 36 + 20
    assert set(engine.batches) <= {1, 2}


def test_smaller_windows_may_be_in_larger_batches_after_the_device_was_full() -> None:
    engine = Held(batch=8, room_windows=4)
    with Scheduler() as scheduler:
        run_together(scheduler, engine, *[windows_of(2, 32)] * 9)
        engine.room_windows = 8
        engine.batches.clear()
        run_all(scheduler, engine, windows_of(40, 16))
    assert 4 < max(engine.batches) <= 8


def test_a_window_too_large_by_itself_fails_its_own_image_only() -> None:
    engine = Held(batch=1, room_px=16)
    with Scheduler() as scheduler:
        images = [windows_of(5), windows_of(5, 17)]
        fits, too_large = run_together(scheduler, engine, *images)
    assert are_right(engine, windows_of(5), fits.result())
    with pytest.raises(EngineOutOfMemory):
        too_large.result()


def test_an_error_of_the_engine_fails_the_image_that_made_it_and_no_other() -> None:
    @dataclass
    class HeldAlarming(Alarming, Held):
        pass

    engine = HeldAlarming(batch=8)
    flat = [*windows_of(2), np.full((16, 16, 3), 9, np.uint8), *windows_of(2)]
    with Scheduler() as scheduler:
        images = [windows_of(5)] * 5
        images.append(flat)
        *good, bad = run_together(scheduler, engine, *images)
    assert all(are_right(engine, windows_of(5), each.result()) for each in good)
    with pytest.raises(ValueError, match="of one colour"):
        bad.result()


def test_a_cancelled_image_leaves_with_the_batch_in_flight() -> None:
    engine = Held(batch=1)
    with Scheduler() as scheduler, ThreadPoolExecutor(1) as pool:
        stream = scheduler.open_stream(engine)
        outcome = pool.submit(run_in, stream, windows_of(50))
        assert engine.is_reached.wait(60)
        stream.cancel()
        engine.is_released.set()
        with pytest.raises(Cancelled):
            outcome.result()
    assert len(engine.seen) == 1


def test_a_cancelled_image_that_still_waits_leaves_at_once() -> None:
    engine = Held(batch=1)
    with Scheduler() as scheduler, ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_all, scheduler, engine, windows_of(1))
        assert engine.is_reached.wait(60)
        stream = scheduler.open_stream(engine)
        waiting = pool.submit(run_in, stream, windows_of(1))
        wait_until(lambda: count_waiting(scheduler) == 1)
        stream.cancel()
        with pytest.raises(Cancelled):
            waiting.result(60)
        assert not first.done()
        engine.is_released.set()


def test_a_small_image_passes_the_batch_of_a_large_one_by_the_fast_path() -> None:
    engine = Held(concurrent=BoxEngine())
    large, small = windows_of(3, 200), windows_of(1)
    with Scheduler() as scheduler, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_all, scheduler, engine, large)
        assert engine.is_reached.wait(60)
        with scheduler.open_stream(engine) as stream:
            assert are_right(engine, small, list(stream.run(small)))
            assert stream.device_s > 0
        assert not waiting.done()
        engine.is_released.set()
        assert are_right(engine, large, waiting.result(60))
    assert engine.seen == [(200, 200)] * 3


def test_a_failure_in_the_fast_path_fails_its_own_image_only() -> None:
    engine = Held(concurrent=Alarming())
    flat: list[Window] = [np.full((16, 16, 3), 9, np.uint8)]
    with Scheduler() as scheduler, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_all, scheduler, engine, windows_of(1, 200))
        assert engine.is_reached.wait(60)
        with pytest.raises(ValueError, match="of one colour"):
            run_all(scheduler, engine, flat)
        assert are_right(engine, windows_of(1), run_all(scheduler, engine, windows_of(1)))
        engine.is_released.set()
        assert are_right(engine, windows_of(1, 200), waiting.result(60))


@pytest.mark.parametrize("concurrent", [None, BoxEngine()])
def test_results_of_a_processor_are_finished_by_their_own_images(
    concurrent: BoxEngine | None,
) -> None:
    """So that it computes the next window meanwhile; a GPU's are by the thread that uses it."""
    finished_by = []

    @dataclass
    class Late(BoxEngine):
        def start(
            self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
        ) -> Started:
            return Noted(super().start(windows, reduce, is_exact=is_exact).finish())

    @dataclass
    class Noted:
        windows: list[Window]
        is_done: bool = True

        def finish(self) -> list[Window]:
            finished_by.append(threading.current_thread())
            return self.windows

    engine = Late(concurrent=concurrent)
    windows = windows_of(4, 200)
    with Scheduler() as scheduler:
        assert are_right(engine, windows, run_all(scheduler, engine, windows))
    assert len(finished_by) == 4
    is_here = {thread is threading.current_thread() for thread in finished_by}
    assert is_here == {concurrent is not None}


def test_a_stream_that_is_left_half_way_withdraws_its_windows() -> None:
    engine = BoxEngine(batch=2)
    with Scheduler() as scheduler:
        with scheduler.open_stream(engine) as stream:
            results = stream.run(windows_of(100))
            next(results)
        wait_until(lambda: count_waiting(scheduler) == 0)
        with pytest.raises(Cancelled):
            list(stream.run(windows_of(1)))
    assert len(engine.seen) <= BATCHES_AHEAD * 2


@dataclass
class Log(BoxEngine):
    """A device that works by itself; `log` lists what was started and waited for, in order."""

    log: list[str] = field(default_factory=list)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        computed = super().start(windows, reduce, is_exact=is_exact)
        number = sum(line.startswith("start") for line in self.log)
        self.log.append(f"start {number}")
        return Logged(computed.finish(), self.log, number)


@dataclass
class Logged:
    windows: list[Window]
    log: list[str]
    number: int
    is_done: bool = False

    def finish(self) -> list[Window]:
        self.log.append(f"finish {self.number}")
        return self.windows


def test_a_device_that_works_by_itself_has_its_next_batch_before_it_is_waited_for() -> None:
    engine = Log(batch=2)
    with Scheduler() as scheduler:
        windows = windows_of(12)
        assert are_right(engine, windows, run_all(scheduler, engine, windows))
    order = engine.log
    assert sorted(order) == sorted(f"{did} {at}" for did in ("start", "finish") for at in range(6))
    ahead = [order.index(f"start {at + 1}") < order.index(f"finish {at}") for at in range(5)]
    assert sum(ahead) >= 3  # not where the image was too slow to request


def test_a_batch_that_is_done_at_once_waits_for_no_other() -> None:
    """The second window stands still, and the first is there all the same."""
    is_released = threading.Event()

    class Slow(BoxEngine):
        def filter(self, window: Window) -> Window:
            assert len(self.batches) == 1 or is_released.wait(60)
            return super().filter(window)

    with Scheduler() as scheduler, scheduler.open_stream(Slow()) as stream:
        results = stream.run(windows_of(3))
        assert next(results) is not None
        is_released.set()
        assert len(list(results)) == 2


def test_a_crash_of_the_devices_thread_fails_all_images_waiting_or_later() -> None:
    engine = Alarming(batch=4, error=SystemExit("the device is gone"))
    flat = np.zeros((16, 16, 3), np.uint8)
    with Scheduler() as scheduler:
        with pytest.raises(InternalError, match="the device is gone"):
            run_all(scheduler, engine, [*windows_of(3), flat, *windows_of(20)])
        with pytest.raises(InternalError, match="the device is gone"):
            run_all(scheduler, engine, windows_of(1))


def test_images_that_wait_when_the_scheduler_ends_fail() -> None:
    engine = Held()
    with ThreadPoolExecutor(1) as pool:
        with Scheduler() as scheduler:
            outcome = pool.submit(run_all, scheduler, engine, windows_of(20))
            assert engine.is_reached.wait(60)
            threading.Timer(0.05, engine.is_released.set).start()
        with pytest.raises(InternalError, match="was stopped"):
            outcome.result()


def test_each_image_reports_its_share_of_the_device() -> None:
    with Scheduler() as scheduler:
        few, many = scheduler.open_stream(BoxEngine()), scheduler.open_stream(BoxEngine())
        run_in(few, windows_of(1, 100))
        run_in(many, windows_of(30, 100))
    assert 0 < few.device_s * 3 < many.device_s


def test_windows_are_cut_only_a_few_batches_ahead() -> None:
    cut = 0

    def cutting() -> Iterator[Window]:
        nonlocal cut
        for window in windows_of(100):
            cut += 1
            yield window

    with Scheduler() as scheduler, scheduler.open_stream(BoxEngine(batch=2)) as stream:
        for taken, _ in enumerate(stream.run(cutting())):
            assert cut <= taken + BATCHES_AHEAD * 2 + 1


def test_small_windows_share_a_batch_where_an_engine_allows_more_of_them() -> None:
    engine = Held(batch=1, small_batch=32, window_px=32)
    with Scheduler() as scheduler:
        run_together(scheduler, engine, *[windows_of(1, 8)] * 18)
    assert engine.batches == [1, 16, 1]


def test_no_more_small_windows_share_a_batch_than_an_engine_allows() -> None:
    engine = Held(batch=1, small_batch=4, window_px=32)
    with Scheduler() as scheduler:
        run_together(scheduler, engine, *[windows_of(1, 8)] * 9)
    assert engine.batches == [1, 4, 4]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_windows_computed_in_float32_share_no_batch(dtype: type) -> None:
    engine = Held(batch=8)
    windows: list[Window] = [window.astype(dtype) for window in windows_of(4)]
    with Scheduler() as scheduler:
        run_together(scheduler, engine, windows, windows, is_exact=True)
    assert set(engine.batches) == {1}


@dataclass
class HeldBands(BandBoxEngine):
    """A device that stands still at its first band or window until it is released."""

    is_reached: threading.Event = field(default_factory=threading.Event)
    is_released: threading.Event = field(default_factory=threading.Event)

    def filter(self, window: Window) -> Window:
        self.is_reached.set()
        assert self.is_released.wait(60)
        return super().filter(window)


def bands_of(engine: BandBoxEngine, pixels: Window) -> list[Window | Band]:
    """A column of three bands of 16 rows each, of which bands show 6 of those above."""
    column, reach = engine.open_column(), engine.radius_px
    bands: list[Window | Band] = []
    for end in (16, 32, 48):
        known = min(end - 16, 2 * reach)
        top, is_last = end - 16 - known, end == 48
        made = range(known and reach, end - top - (0 if is_last else reach))
        bands.append(Band(column, pixels[top:end], known, made, is_last))
    return bands


def test_a_band_shares_no_batch_with_other_bands_or_windows() -> None:
    """The first bands are as large as the windows."""
    engine, reported = HeldBands(batch=8), CountedBatches()
    first, second, third = (np.concatenate(windows_of(3, seed=seed)) for seed in range(3))
    images: list[list[Window | Band]] = [
        [*windows_of(1)],
        *(bands_of(engine, pixels) for pixels in (first, second, third)),
        [*windows_of(2)],
        [*windows_of(2)],
    ]
    with Scheduler(reported) as scheduler, ThreadPoolExecutor(len(images)) as pool:
        streams = [scheduler.open_stream(engine) for _ in images]
        outcomes = [pool.submit(list, streams[0].run(images[0]))]
        assert engine.is_reached.wait(60)
        for stream, image in zip(streams[1:], images[1:], strict=True):
            outcomes.append(pool.submit(list, stream.run(image)))
        wait_until(lambda: count_waiting(scheduler) == len(images) - 1)
        engine.is_released.set()
        results = [outcome.result(60) for outcome in outcomes]

    for pixels, parts in zip((first, second, third), results[1:4], strict=True):
        assert np.array_equal(np.concatenate(parts), engine.filter(pixels))
    assert sum(done.windows for done in reported) == 5 + 9
    assert sorted(engine.batches)[-1] > 1, "windows share one"
    assert len(reported) == len(engine.batches) + len(engine.bands)


def test_a_band_counts_as_the_rows_of_its_own() -> None:
    engine, reported, pixels = BandBoxEngine(), CountedBatches(), windows_of(1, 48)[0][:, :20]
    with Scheduler(reported) as scheduler, scheduler.open_stream(engine) as stream:
        results = list(stream.run(bands_of(engine, pixels)))
        assert stream._queue.total_px == 48 * 20

    assert np.array_equal(np.concatenate(results), engine.filter(pixels))
    assert [(done.height_px, done.width_px) for done in reported] == [(16, 20)] * 3
    assert {(done.windows, done.max_windows) for done in reported} == {(1, 1)}


def test_a_band_of_a_small_image_is_computed_by_its_column_while_others_wait() -> None:
    """Its last band could go through the fast path."""
    engine = HeldBands(concurrent=BoxEngine())
    pixels = np.concatenate(windows_of(3))
    with Scheduler() as scheduler, ThreadPoolExecutor(2) as pool:
        large = pool.submit(run_all, scheduler, engine, windows_of(3, 200))
        assert engine.is_reached.wait(60)
        with scheduler.open_stream(engine) as stream:
            small = pool.submit(list, stream.run(bands_of(engine, pixels)))
            wait_until(lambda: count_waiting(scheduler) == 2)
            engine.is_released.set()
            assert np.array_equal(np.concatenate(small.result(60)), engine.filter(pixels))
        assert are_right(engine, windows_of(3, 200), large.result(60))
