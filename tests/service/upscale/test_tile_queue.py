"""Order of service, without any thread."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.service.upscale.box_engine import BoxEngine
from upscaled.errors import InternalError
from upscaled.upscale.concurrency import Cancelled
from upscaled.upscale.tile_queue import TileQueue
from upscaled.upscale.tile_request import (
    FAST_PATH_PX,
    FAST_PATH_S,
    USUAL_S_PER_PX,
    ImageQueue,
    TileRequest,
)
from upscaled_models.backends.base import Engine

ENGINE = BoxEngine()
BATCHES_OF_4, BATCHES_OF_6, BATCHES_OF_8 = (BoxEngine(batch=batch) for batch in (4, 6, 8))
TWO_AT_ONCE = BoxEngine(concurrent=BoxEngine())
SMALL_PX, LARGE_PX = 8, 64
FAST_PATH_SIDE_PX = int(FAST_PATH_PX**0.5)


@pytest.fixture
def tile_queue() -> TileQueue:
    return TileQueue()


def put(
    tile_queue: TileQueue,
    queue: ImageQueue,
    side_px: int,
    *,
    engine: Engine = ENGINE,
    reduce: int = 1,
    is_exact: bool = False,
    dtype: type[np.uint8 | np.uint16] = np.uint8,
    s_per_px: float = USUAL_S_PER_PX,
) -> TileRequest:
    window = np.zeros((side_px, side_px, 3), dtype)
    request = TileRequest(queue, engine, window, reduce, is_exact, s_per_px=s_per_px)
    tile_queue.put(request)
    return request


def put_many(tile_queue: TileQueue, count: int, queue: ImageQueue, side_px: int) -> None:
    for _ in range(count):
        put(tile_queue, queue, side_px)


def take(tile_queue: TileQueue) -> list[TileRequest]:
    return tile_queue.next_batch(is_patient=False)


def served(tile_queue: TileQueue, count: int, *queues: ImageQueue) -> str:
    """The order of the next `count` windows, as letters for the queues."""
    names = {queue.number: name for queue, name in zip(queues, "abcdef", strict=False)}
    return "".join(
        names[request.queue.number] for _ in range(count) for request in take(tile_queue)
    )


def test_windows_of_one_image_are_served_in_their_order(tile_queue: TileQueue) -> None:
    queue = tile_queue.join()
    requests = [put(tile_queue, queue, SMALL_PX) for _ in range(5)]
    assert [take(tile_queue)[0] for _ in range(5)] == requests
    assert take(tile_queue) == []


def test_images_alike_are_served_alternately(tile_queue: TileQueue) -> None:
    a, b = tile_queue.join(), tile_queue.join()
    for queue in (a, a, a, b, b, b):
        put(tile_queue, queue, LARGE_PX)
    assert served(tile_queue, 6, a, b) == "ababab"


def test_a_small_image_precedes_the_next_window_of_a_large_one(tile_queue: TileQueue) -> None:
    large, small = tile_queue.join(), tile_queue.join()
    put_many(tile_queue, 10, large, LARGE_PX)
    assert served(tile_queue, 4, large) == "aaaa"
    put(tile_queue, small, SMALL_PX)
    assert served(tile_queue, 2, large, small) == "ba"


def test_an_image_of_many_small_windows_has_as_many_pixels_as_one_of_large_ones(
    tile_queue: TileQueue,
) -> None:
    large, small = tile_queue.join(), tile_queue.join()
    put_many(tile_queue, 4, large, LARGE_PX)
    put_many(tile_queue, 200, small, SMALL_PX)
    order = served(tile_queue, 130, large, small)
    assert order.count("a") == 2  # as many pixels as 128 of the other have
    assert order[:66].count("a") == 1


def test_small_images_without_end_do_not_keep_a_large_one_waiting(tile_queue: TileQueue) -> None:
    large = tile_queue.join()
    put_many(tile_queue, 3, large, LARGE_PX)
    large_served = 0
    for _ in range(400):
        small = tile_queue.join()  # always a new one, and always one that waits already
        put(tile_queue, small, SMALL_PX)
        [request] = take(tile_queue)
        large_served += request.queue is large
    assert large_served == 3


def test_an_image_that_had_no_windows_for_a_while_has_saved_up_no_share(
    tile_queue: TileQueue,
) -> None:
    idle, busy = tile_queue.join(), tile_queue.join()
    put(tile_queue, idle, LARGE_PX)
    put_many(tile_queue, 50, busy, LARGE_PX)
    served(tile_queue, 41, idle, busy)
    put_many(tile_queue, 5, idle, LARGE_PX)
    assert served(tile_queue, 6, idle, busy) in ("ababab", "bababa")


def test_a_batch_is_filled_from_all_images_alternately(tile_queue: TileQueue) -> None:
    a, b = tile_queue.join(), tile_queue.join()
    for _ in range(6):
        put(tile_queue, a, SMALL_PX, engine=BATCHES_OF_4)
    put(tile_queue, b, SMALL_PX, engine=BATCHES_OF_4)
    put(tile_queue, b, SMALL_PX, engine=BATCHES_OF_4)
    assert [request.queue for request in take(tile_queue)] == [a, b, a, b]
    assert [request.queue for request in take(tile_queue)] == [a, a, a, a]


@pytest.mark.parametrize(
    "other",
    [
        {"side_px": LARGE_PX},
        {"side_px": SMALL_PX, "reduce": 2},
        {"side_px": SMALL_PX, "is_exact": True},
        {"side_px": SMALL_PX, "dtype": np.uint16},
        {"side_px": SMALL_PX, "engine": BoxEngine(batch=8)},
    ],
)
def test_unlike_windows_never_share_a_batch(
    tile_queue: TileQueue, other: dict[str, object]
) -> None:
    small = put(tile_queue, tile_queue.join(), SMALL_PX, engine=BATCHES_OF_8)
    unlike = put(tile_queue, tile_queue.join(), **{"engine": BATCHES_OF_8, **other})  # type: ignore[arg-type]
    batches = [take(tile_queue), take(tile_queue)]
    assert sorted(map(len, batches)) == [1, 1]
    assert {request for batch in batches for request in batch} == {small, unlike}


def test_an_image_that_leaves_withdraws_its_windows_and_can_put_no_more(
    tile_queue: TileQueue,
) -> None:
    leaving, other = tile_queue.join(), tile_queue.join()
    gone = [put(tile_queue, leaving, SMALL_PX, engine=BATCHES_OF_8) for _ in range(3)]
    kept = put(tile_queue, other, SMALL_PX, engine=BATCHES_OF_8)
    tile_queue.leave(leaving)
    assert take(tile_queue) == [kept]
    for request in gone:
        with pytest.raises(Cancelled):
            request.result.result(0).finish()
    with pytest.raises(Cancelled):
        put(tile_queue, leaving, SMALL_PX, engine=BATCHES_OF_8)


def test_once_closed_windows_waiting_or_later_fail_with_the_reason(tile_queue: TileQueue) -> None:
    waiting = put(tile_queue, tile_queue.join(), SMALL_PX)
    tile_queue.close("first")
    tile_queue.close("second")
    with pytest.raises(InternalError, match="first"):
        waiting.result.result(0).finish()
    assert tile_queue.next_batch(is_patient=True) == []
    with pytest.raises(InternalError, match="first"):
        put(tile_queue, tile_queue.join(), SMALL_PX)


def test_a_batch_has_a_power_of_two_of_windows_and_the_rest_is_next(tile_queue: TileQueue) -> None:
    for _ in range(7):
        put(tile_queue, tile_queue.join(), SMALL_PX, engine=BATCHES_OF_8)
    assert [len(take(tile_queue)) for _ in range(4)] == [4, 2, 1, 0]


def test_no_batch_is_larger_than_its_engine_allows(tile_queue: TileQueue) -> None:
    for _ in range(9):
        put(tile_queue, tile_queue.join(), SMALL_PX, engine=BATCHES_OF_6)
    assert [len(take(tile_queue)) for _ in range(3)] == [4, 4, 1]


def test_a_small_image_uses_the_fast_path_while_the_device_is_busy_and_not_before(
    tile_queue: TileQueue,
) -> None:
    small = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
    assert take(tile_queue) == [small]
    passing = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
    more = put(tile_queue, small.queue, SMALL_PX, engine=TWO_AT_ONCE)
    assert tile_queue.next_for_fast_path() is passing
    assert take(tile_queue) == [more]  # it waited for its own image only
    assert take(tile_queue) == []
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(tile_queue.next_for_fast_path)
        put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
        with pytest.raises(TimeoutError):  # the device is free: `take` will come for it
            taken.result(0.05)
        other = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
        assert take(tile_queue) != [other]
        assert taken.result(60) is other


@pytest.mark.parametrize("more_px", [0, 1])
def test_only_images_up_to_a_size_use_the_fast_path(tile_queue: TileQueue, more_px: int) -> None:
    put(tile_queue, tile_queue.join(), LARGE_PX, engine=TWO_AT_ONCE)
    take(tile_queue)
    request = put(tile_queue, tile_queue.join(), FAST_PATH_SIDE_PX + more_px, engine=TWO_AT_ONCE)
    assert request.fits_fast_path == (not more_px)


def test_an_image_of_many_small_windows_does_not_use_the_fast_path(tile_queue: TileQueue) -> None:
    queue = tile_queue.join()
    count = FAST_PATH_PX // LARGE_PX**2
    requests = [put(tile_queue, queue, LARGE_PX, engine=TWO_AT_ONCE) for _ in range(count)]
    assert requests[0].fits_fast_path
    put(tile_queue, queue, LARGE_PX, engine=TWO_AT_ONCE)
    assert not requests[0].fits_fast_path


def test_a_device_that_does_one_thing_at_a_time_has_no_fast_path(tile_queue: TileQueue) -> None:
    assert not put(tile_queue, tile_queue.join(), SMALL_PX).fits_fast_path


def test_windows_of_the_fast_path_are_charged_like_others(tile_queue: TileQueue) -> None:
    """An image of four windows that had one in the fast path comes after one that had none."""
    a, b = tile_queue.join(), tile_queue.join()
    put(tile_queue, tile_queue.join(), LARGE_PX)
    take(tile_queue)
    for _ in range(3):
        put(tile_queue, a, SMALL_PX, engine=TWO_AT_ONCE)
        put(tile_queue, b, SMALL_PX)
    assert getattr(tile_queue.next_for_fast_path(), "queue", None) is a
    assert [take(tile_queue)[0].queue for _ in range(2)] == [b, a]


def test_a_thread_that_waits_for_the_fast_path_returns_once_the_queue_is_closed(
    tile_queue: TileQueue,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(tile_queue.next_for_fast_path)
        tile_queue.close("over")
        assert taken.result(60) is None


def test_the_first_of_several_windows_never_uses_the_fast_path() -> None:
    queue = TileQueue().join()
    first = TileRequest(queue, TWO_AT_ONCE, np.zeros((8, 8, 3), np.uint8), 1, False, is_last=False)
    assert not first.fits_fast_path
    assert replace(first, is_last=True).fits_fast_path


def test_keys_share_the_device_however_many_images_each_has(tile_queue: TileQueue) -> None:
    crowd = [tile_queue.join(key_id=1) for _ in range(3)]
    single = tile_queue.join(key_id=2)
    for queue in crowd:
        put_many(tile_queue, 2, queue, LARGE_PX)
    put_many(tile_queue, 6, single, LARGE_PX)
    assert served(tile_queue, 12, *crowd, single) == "adbdcdadbdcd"


def test_a_key_that_joins_later_has_its_share_at_once_and_no_more(tile_queue: TileQueue) -> None:
    crowd = [tile_queue.join(key_id=1) for _ in range(2)]
    for queue in crowd:
        put_many(tile_queue, 20, queue, LARGE_PX)
    assert served(tile_queue, 8, *crowd) == "abababab"
    late = tile_queue.join(key_id=2)
    put_many(tile_queue, 4, late, LARGE_PX)
    order = served(tile_queue, 8, *crowd, late)
    assert order.count("c") == 4
    assert served(tile_queue, 4, *crowd, late).count("c") == 0


def test_a_small_image_precedes_the_large_ones_of_its_own_key(tile_queue: TileQueue) -> None:
    large, small = tile_queue.join(key_id=1), tile_queue.join(key_id=1)
    put_many(tile_queue, 6, large, LARGE_PX)
    assert served(tile_queue, 3, large) == "aaa"
    put(tile_queue, small, SMALL_PX)
    assert served(tile_queue, 2, large, small) == "ba"


def test_windows_of_different_keys_share_a_batch(tile_queue: TileQueue) -> None:
    queues = [tile_queue.join(key_id=number // 2) for number in range(4)]
    for queue in queues:
        put(tile_queue, queue, LARGE_PX, engine=BATCHES_OF_8)
    assert len(take(tile_queue)) == 4


def test_a_key_that_withdraws_its_images_leaves_nothing_waiting(tile_queue: TileQueue) -> None:
    queues = [tile_queue.join(key_id=1) for _ in range(2)]
    for queue in queues:
        put(tile_queue, queue, LARGE_PX)
        tile_queue.leave(queue)
    assert queues[0].key is queues[1].key
    assert queues[0].key.waiting == 0
    assert take(tile_queue) == []
    other = tile_queue.join(key_id=2)
    put(tile_queue, other, LARGE_PX)
    assert len(take(tile_queue)) == 1


def test_no_memory_is_kept_for_keys_without_images(tile_queue: TileQueue) -> None:
    for key_id in range(50):
        tile_queue.join(key_id=key_id)
    assert len(tile_queue._keys) <= 1


def test_a_share_is_of_the_devices_time_and_not_of_pixels(tile_queue: TileQueue) -> None:
    slow, fast = tile_queue.join(), tile_queue.join()
    for _ in range(8):
        put(tile_queue, slow, LARGE_PX, s_per_px=4 * USUAL_S_PER_PX)
        put(tile_queue, fast, LARGE_PX)
    assert served(tile_queue, 9, slow, fast).count("b") >= 7


def test_two_queues_of_one_image_use_one_share(tile_queue: TileQueue) -> None:
    first, other = tile_queue.join(), tile_queue.join()
    beside = tile_queue.join(beside=first)
    for queue in (first, beside, other):
        for _ in range(6):
            put(tile_queue, queue, LARGE_PX)
    assert served(tile_queue, 6, first, beside, other).count("c") == 3


@pytest.mark.parametrize(("more_s", "fits"), [(0.0, True), (0.001, False)])
def test_a_small_window_that_costs_much_does_not_use_the_fast_path(
    tile_queue: TileQueue, more_s: float, fits: bool
) -> None:
    put(tile_queue, tile_queue.join(), LARGE_PX, engine=TWO_AT_ONCE)
    take(tile_queue)
    s_per_px = (FAST_PATH_S + more_s) / SMALL_PX**2
    request = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE, s_per_px=s_per_px)
    assert request.fits_fast_path == fits
    if fits:
        assert tile_queue.next_for_fast_path() is request
