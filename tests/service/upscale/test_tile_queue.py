"""Who is next, without any thread: what is put first and what is taken then."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.service.upscale.box_engine import BoxEngine
from upscaled.upscale.tile_queue import (
    FAST_PATH_PX,
    FAST_PATH_S,
    USUAL_S_PER_PX,
    ImageQueue,
    TileQueue,
    TileRequest,
)
from upscaled_models.backends.base import Engine

ENGINE = BoxEngine()
BATCHES_OF_4, BATCHES_OF_6, BATCHES_OF_8 = (BoxEngine(batch=batch) for batch in (4, 6, 8))
TWO_AT_ONCE = BoxEngine(concurrent=BoxEngine())
SMALL_PX, LARGE_PX = 8, 64
LEAST_SIDE_ASIDE_PX = int(FAST_PATH_PX**0.5)


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


def take(tile_queue: TileQueue) -> list[TileRequest]:
    return tile_queue.take(is_patient=False)


def served(tile_queue: TileQueue, count: int, *queues: ImageQueue) -> str:
    """The order of the next `count` windows, as letters for the queues."""
    names = {queue.number: name for queue, name in zip(queues, "abcdef", strict=False)}
    return "".join(
        names[request.queue.number] for _ in range(count) for request in take(tile_queue)
    )


def test_windows_of_one_image_come_in_their_order() -> None:
    tile_queue = TileQueue()
    queue = tile_queue.join()
    requests = [put(tile_queue, queue, SMALL_PX) for _ in range(5)]
    assert [take(tile_queue)[0] for _ in range(5)] == requests
    assert take(tile_queue) == []


def test_images_alike_take_turns() -> None:
    tile_queue = TileQueue()
    a, b = tile_queue.join(), tile_queue.join()
    for queue in (a, a, a, b, b, b):
        put(tile_queue, queue, LARGE_PX)
    assert served(tile_queue, 6, a, b) == "ababab"


def test_a_small_image_goes_before_the_next_window_of_a_large_one() -> None:
    tile_queue = TileQueue()
    large, small = tile_queue.join(), tile_queue.join()
    for _ in range(10):
        put(tile_queue, large, LARGE_PX)
    assert served(tile_queue, 4, large) == "aaaa"
    put(tile_queue, small, SMALL_PX)
    assert served(tile_queue, 2, large, small) == "ba"


def test_an_image_of_many_small_windows_has_as_many_pixels_as_one_of_large_ones() -> None:
    tile_queue = TileQueue()
    large, small = tile_queue.join(), tile_queue.join()
    for _ in range(4):
        put(tile_queue, large, LARGE_PX)
    for _ in range(200):
        put(tile_queue, small, SMALL_PX)
    order = served(tile_queue, 130, large, small)
    assert order.count("a") == 2  # as many pixels as 128 of the other have
    assert order[:66].count("a") == 1


def test_small_images_without_end_do_not_keep_a_large_one_waiting() -> None:
    tile_queue = TileQueue()
    large = tile_queue.join()
    for _ in range(3):
        put(tile_queue, large, LARGE_PX)
    large_served = 0
    for _ in range(400):
        small = tile_queue.join()  # always a new one, and always one that waits already
        put(tile_queue, small, SMALL_PX)
        [request] = take(tile_queue)
        large_served += request.queue is large
    assert large_served == 3


def test_who_had_nothing_to_do_for_a_while_has_saved_nothing_up() -> None:
    tile_queue = TileQueue()
    idle, busy = tile_queue.join(), tile_queue.join()
    put(tile_queue, idle, LARGE_PX)
    for _ in range(50):
        put(tile_queue, busy, LARGE_PX)
    served(tile_queue, 41, idle, busy)
    for _ in range(5):
        put(tile_queue, idle, LARGE_PX)
    assert served(tile_queue, 6, idle, busy) in ("ababab", "bababa")


def test_a_batch_is_filled_from_all_images_in_turn() -> None:
    tile_queue = TileQueue()
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
def test_unlike_windows_never_share_a_batch(other: dict[str, object]) -> None:
    tile_queue = TileQueue()
    small = put(tile_queue, tile_queue.join(), SMALL_PX, engine=BATCHES_OF_8)
    unlike = put(tile_queue, tile_queue.join(), **{"engine": BATCHES_OF_8, **other})  # type: ignore[arg-type]
    batches = [take(tile_queue), take(tile_queue)]
    assert sorted(map(len, batches)) == [1, 1]
    assert {request for batch in batches for request in batch} == {small, unlike}


def test_an_image_that_leaves_takes_its_windows_along_and_puts_no_more() -> None:
    tile_queue = TileQueue()
    leaving, other = tile_queue.join(), tile_queue.join()
    gone = [put(tile_queue, leaving, SMALL_PX, engine=BATCHES_OF_8) for _ in range(3)]
    kept = put(tile_queue, other, SMALL_PX, engine=BATCHES_OF_8)
    tile_queue.leave(leaving, TimeoutError())
    assert take(tile_queue) == [kept]
    assert all(isinstance(request.result.exception(0), TimeoutError) for request in gone)
    with pytest.raises(TimeoutError):
        put(tile_queue, leaving, SMALL_PX, engine=BATCHES_OF_8)


def test_once_closed_windows_that_wait_or_come_fail_with_the_reason() -> None:
    tile_queue = TileQueue()
    waiting = put(tile_queue, tile_queue.join(), SMALL_PX)
    tile_queue.close(TimeoutError("first"))
    tile_queue.close(ValueError("second"))
    assert str(waiting.result.exception(0)) == "first"
    assert tile_queue.take(is_patient=True) == []
    with pytest.raises(TimeoutError, match="first"):
        put(tile_queue, tile_queue.join(), SMALL_PX)


def test_a_batch_has_a_power_of_two_of_windows_and_the_rest_is_next() -> None:
    tile_queue = TileQueue()
    for _ in range(7):
        put(tile_queue, tile_queue.join(), SMALL_PX, engine=BATCHES_OF_8)
    assert [len(take(tile_queue)) for _ in range(4)] == [4, 2, 1, 0]


def test_no_batch_is_larger_than_asked_for_whatever_waits() -> None:
    tile_queue = TileQueue()
    for _ in range(9):
        put(tile_queue, tile_queue.join(), SMALL_PX, engine=BATCHES_OF_6)
    assert [len(take(tile_queue)) for _ in range(3)] == [4, 4, 1]


def test_a_small_image_is_taken_aside_while_the_device_is_busy_and_not_before() -> None:
    tile_queue = TileQueue()
    small = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
    assert take(tile_queue) == [small]
    passing = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
    more = put(tile_queue, small.queue, SMALL_PX, engine=TWO_AT_ONCE)
    assert tile_queue.take_for_fast_path() is passing
    assert take(tile_queue) == [more]  # it waited for its own image only
    assert take(tile_queue) == []
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(tile_queue.take_for_fast_path)
        put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
        with pytest.raises(TimeoutError):  # the device is free: `take` will come for it
            taken.result(0.05)
        other = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE)
        assert take(tile_queue) != [other]
        assert taken.result(20) is other


@pytest.mark.parametrize("more_px", [0, 1])
def test_only_images_up_to_a_size_are_taken_aside(more_px: int) -> None:
    tile_queue = TileQueue()
    put(tile_queue, tile_queue.join(), LARGE_PX, engine=TWO_AT_ONCE)
    take(tile_queue)
    asked = put(tile_queue, tile_queue.join(), LEAST_SIDE_ASIDE_PX + more_px, engine=TWO_AT_ONCE)
    assert asked.fits_fast_path == (not more_px)


def test_an_image_of_many_small_windows_is_no_small_image() -> None:
    tile_queue = TileQueue()
    queue = tile_queue.join()
    count = FAST_PATH_PX // LARGE_PX**2
    requests = [put(tile_queue, queue, LARGE_PX, engine=TWO_AT_ONCE) for _ in range(count)]
    assert requests[0].fits_fast_path
    put(tile_queue, queue, LARGE_PX, engine=TWO_AT_ONCE)
    assert not requests[0].fits_fast_path


def test_nothing_is_taken_aside_from_a_device_that_does_one_thing_at_a_time() -> None:
    tile_queue = TileQueue()
    assert not put(tile_queue, tile_queue.join(), SMALL_PX).fits_fast_path


def test_what_was_taken_aside_is_charged_like_the_rest() -> None:
    """An image of four windows that had one in the fast path comes after one that had none."""
    tile_queue = TileQueue()
    a, b = tile_queue.join(), tile_queue.join()
    put(tile_queue, tile_queue.join(), LARGE_PX)
    take(tile_queue)
    for _ in range(3):
        put(tile_queue, a, SMALL_PX, engine=TWO_AT_ONCE)
        put(tile_queue, b, SMALL_PX)
    assert getattr(tile_queue.take_for_fast_path(), "queue", None) is a
    assert [take(tile_queue)[0].queue for _ in range(2)] == [b, a]


def test_who_waits_to_take_aside_is_let_go_at_the_end() -> None:
    tile_queue = TileQueue()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(tile_queue.take_for_fast_path)
        tile_queue.close(TimeoutError())
        assert taken.result(20) is None


def test_the_first_of_several_windows_is_not_taken_aside_however_small() -> None:
    queue = TileQueue().join()
    first = TileRequest(queue, TWO_AT_ONCE, np.zeros((8, 8, 3), np.uint8), 1, False, is_last=False)
    assert not first.fits_fast_path
    assert replace(first, is_last=True).fits_fast_path


def test_keys_share_the_device_however_many_images_each_has() -> None:
    tile_queue = TileQueue()
    crowd = [tile_queue.join(key_id=1) for _ in range(3)]
    single = tile_queue.join(key_id=2)
    for queue in crowd:
        for _ in range(2):
            put(tile_queue, queue, LARGE_PX)
    for _ in range(6):
        put(tile_queue, single, LARGE_PX)
    assert served(tile_queue, 12, *crowd, single) == "adbdcdadbdcd"


def test_a_key_that_comes_later_has_its_share_at_once_and_no_more() -> None:
    tile_queue = TileQueue()
    crowd = [tile_queue.join(key_id=1) for _ in range(2)]
    for queue in crowd:
        for _ in range(20):
            put(tile_queue, queue, LARGE_PX)
    assert served(tile_queue, 8, *crowd) == "abababab"
    late = tile_queue.join(key_id=2)
    for _ in range(4):
        put(tile_queue, late, LARGE_PX)
    order = served(tile_queue, 8, *crowd, late)
    assert order.count("c") == 4
    assert served(tile_queue, 4, *crowd, late).count("c") == 0


def test_a_small_image_goes_before_the_large_ones_of_its_own_key() -> None:
    tile_queue = TileQueue()
    large, small = tile_queue.join(key_id=1), tile_queue.join(key_id=1)
    for _ in range(6):
        put(tile_queue, large, LARGE_PX)
    assert served(tile_queue, 3, large) == "aaa"
    put(tile_queue, small, SMALL_PX)
    assert served(tile_queue, 2, large, small) == "ba"


def test_windows_of_different_keys_share_a_batch() -> None:
    tile_queue = TileQueue()
    queues = [tile_queue.join(key_id=number // 2) for number in range(4)]
    for queue in queues:
        put(tile_queue, queue, LARGE_PX, engine=BATCHES_OF_8)
    assert len(take(tile_queue)) == 4


def test_a_key_that_withdraws_its_images_leaves_nothing_waiting() -> None:
    tile_queue = TileQueue()
    queues = [tile_queue.join(key_id=1) for _ in range(2)]
    for queue in queues:
        put(tile_queue, queue, LARGE_PX)
        tile_queue.leave(queue, ValueError("gone"))
    assert queues[0].key is queues[1].key
    assert queues[0].key.waiting == 0
    assert take(tile_queue) == []
    other = tile_queue.join(key_id=2)
    put(tile_queue, other, LARGE_PX)
    assert len(take(tile_queue)) == 1


def test_keys_without_images_are_forgotten() -> None:
    tile_queue = TileQueue()
    for key_id in range(50):
        tile_queue.join(key_id=key_id)
    assert len(tile_queue._keys) <= 1


def test_a_share_is_of_the_devices_time_and_not_of_pixels() -> None:
    tile_queue = TileQueue()
    slow, fast = tile_queue.join(), tile_queue.join()
    for _ in range(8):
        put(tile_queue, slow, LARGE_PX, s_per_px=4 * USUAL_S_PER_PX)
        put(tile_queue, fast, LARGE_PX)
    assert served(tile_queue, 9, slow, fast).count("b") >= 7


def test_two_queues_of_one_image_use_one_share() -> None:
    tile_queue = TileQueue()
    first, other = tile_queue.join(), tile_queue.join()
    beside = tile_queue.join(beside=first)
    for queue in (first, beside, other):
        for _ in range(6):
            put(tile_queue, queue, LARGE_PX)
    assert served(tile_queue, 6, first, beside, other).count("c") == 3


@pytest.mark.parametrize(("more_s", "is_taken"), [(0.0, True), (0.001, False)])
def test_what_costs_much_does_not_go_aside_however_small_it_is(
    more_s: float, is_taken: bool
) -> None:
    tile_queue = TileQueue()
    put(tile_queue, tile_queue.join(), LARGE_PX, engine=TWO_AT_ONCE)
    take(tile_queue)
    s_per_px = (FAST_PATH_S + more_s) / SMALL_PX**2
    request = put(tile_queue, tile_queue.join(), SMALL_PX, engine=TWO_AT_ONCE, s_per_px=s_per_px)
    assert request.fits_fast_path == is_taken
    if is_taken:
        assert tile_queue.take_for_fast_path() is request
