"""Who is next, without any thread: what is put first and what is taken then."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.service.upscale.box_engine import BoxEngine
from upscaled.upscale.turns import ASIDE_PX, ASIDE_S, USUAL_S_PER_PX, Ask, Queue, Turns
from upscaled_models.backends.base import Engine

ENGINE = BoxEngine(batch=8)
TWO_AT_ONCE = BoxEngine(aside=BoxEngine())
SMALL_PX, LARGE_PX = 8, 64
LEAST_SIDE_ASIDE_PX = int(ASIDE_PX**0.5)


def put(
    turns: Turns,
    queue: Queue,
    side_px: int,
    *,
    engine: Engine = ENGINE,
    reduce: int = 1,
    is_exact: bool = False,
    dtype: type[np.uint8 | np.uint16] = np.uint8,
    s_per_px: float = USUAL_S_PER_PX,
) -> Ask:
    window = np.zeros((side_px, side_px, 3), dtype)
    ask = Ask(queue, engine, window, reduce, is_exact, s_per_px=s_per_px)
    turns.put(ask)
    return ask


def take(turns: Turns, most: int = 1) -> list[Ask]:
    return turns.take(lambda ask: most, is_patient=False)


def served(turns: Turns, count: int, *queues: Queue) -> str:
    """The order of the next `count` windows, as letters for the queues."""
    names = {queue.number: name for queue, name in zip(queues, "abcdef", strict=False)}
    return "".join(names[ask.queue.number] for _ in range(count) for ask in take(turns))


def test_windows_of_one_image_come_in_their_order() -> None:
    turns = Turns()
    queue = turns.join()
    asks = [put(turns, queue, SMALL_PX) for _ in range(5)]
    assert [take(turns)[0] for _ in range(5)] == asks
    assert take(turns) == []


def test_images_alike_take_turns() -> None:
    turns = Turns()
    a, b = turns.join(), turns.join()
    for queue in (a, a, a, b, b, b):
        put(turns, queue, LARGE_PX)
    assert served(turns, 6, a, b) == "ababab"


def test_a_small_image_goes_before_the_next_window_of_a_large_one() -> None:
    turns = Turns()
    large, small = turns.join(), turns.join()
    for _ in range(10):
        put(turns, large, LARGE_PX)
    assert served(turns, 4, large) == "aaaa"
    put(turns, small, SMALL_PX)
    assert served(turns, 2, large, small) == "ba"


def test_an_image_of_many_small_windows_has_as_many_pixels_as_one_of_large_ones() -> None:
    turns = Turns()
    large, small = turns.join(), turns.join()
    for _ in range(4):
        put(turns, large, LARGE_PX)
    for _ in range(200):
        put(turns, small, SMALL_PX)
    order = served(turns, 130, large, small)
    assert order.count("a") == 2  # as many pixels as 128 of the other have
    assert order[:66].count("a") == 1


def test_small_images_without_end_do_not_keep_a_large_one_waiting() -> None:
    turns = Turns()
    large = turns.join()
    for _ in range(3):
        put(turns, large, LARGE_PX)
    large_served = 0
    for _ in range(400):
        small = turns.join()  # always a new one, and always one that waits already
        put(turns, small, SMALL_PX)
        [ask] = take(turns)
        large_served += ask.queue is large
    assert large_served == 3


def test_who_had_nothing_to_do_for_a_while_has_saved_nothing_up() -> None:
    turns = Turns()
    idle, busy = turns.join(), turns.join()
    put(turns, idle, LARGE_PX)
    for _ in range(50):
        put(turns, busy, LARGE_PX)
    served(turns, 41, idle, busy)
    for _ in range(5):
        put(turns, idle, LARGE_PX)
    assert served(turns, 6, idle, busy) in ("ababab", "bababa")


def test_a_batch_is_filled_from_all_images_in_turn() -> None:
    turns = Turns()
    a, b = turns.join(), turns.join()
    for _ in range(6):
        put(turns, a, SMALL_PX)
    put(turns, b, SMALL_PX)
    put(turns, b, SMALL_PX)
    assert [ask.queue for ask in take(turns, most=4)] == [a, b, a, b]
    assert [ask.queue for ask in take(turns, most=4)] == [a, a, a, a]


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
    turns = Turns()
    asks = [put(turns, turns.join(), SMALL_PX), put(turns, turns.join(), **other)]  # type: ignore[arg-type]
    batches = [take(turns, most=8), take(turns, most=8)]
    assert sorted(map(len, batches)) == [1, 1]
    assert {ask for batch in batches for ask in batch} == set(asks)


def test_an_image_that_leaves_takes_its_windows_along_and_puts_no_more() -> None:
    turns = Turns()
    leaving, other = turns.join(), turns.join()
    gone = [put(turns, leaving, SMALL_PX) for _ in range(3)]
    kept = put(turns, other, SMALL_PX)
    turns.leave(leaving, TimeoutError())
    assert take(turns, most=8) == [kept]
    assert all(isinstance(ask.result.exception(0), TimeoutError) for ask in gone)
    with pytest.raises(TimeoutError):
        put(turns, leaving, SMALL_PX)


def test_once_closed_whatever_waits_or_comes_is_told_why() -> None:
    turns = Turns()
    waiting = put(turns, turns.join(), SMALL_PX)
    turns.close(TimeoutError("first"))
    turns.close(ValueError("second"))
    assert str(waiting.result.exception(0)) == "first"
    assert turns.take(lambda ask: 1, is_patient=True) == []
    with pytest.raises(TimeoutError, match="first"):
        put(turns, turns.join(), SMALL_PX)


def test_a_batch_has_a_power_of_two_of_windows_and_the_rest_is_next() -> None:
    turns = Turns()
    for _ in range(7):
        put(turns, turns.join(), SMALL_PX)
    assert [len(take(turns, most=8)) for _ in range(4)] == [4, 2, 1, 0]


def test_no_batch_is_larger_than_asked_for_whatever_waits() -> None:
    turns = Turns()
    for _ in range(9):
        put(turns, turns.join(), SMALL_PX)
    assert [len(take(turns, most=6)) for _ in range(3)] == [4, 4, 1]


def test_a_small_image_is_taken_aside_while_the_device_is_busy_and_not_before() -> None:
    turns = Turns()
    small = put(turns, turns.join(), SMALL_PX, engine=TWO_AT_ONCE)
    assert take(turns) == [small]
    passing = put(turns, turns.join(), SMALL_PX, engine=TWO_AT_ONCE)
    more = put(turns, small.queue, SMALL_PX, engine=TWO_AT_ONCE)
    assert turns.take_aside() is passing
    assert take(turns) == [more]  # it waited for its own image only
    assert take(turns) == []
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(turns.take_aside)
        put(turns, turns.join(), SMALL_PX, engine=TWO_AT_ONCE)
        with pytest.raises(TimeoutError):  # the device is free: `take` will come for it
            taken.result(0.05)
        other = put(turns, turns.join(), SMALL_PX, engine=TWO_AT_ONCE)
        assert take(turns) != [other]
        assert taken.result(20) is other


@pytest.mark.parametrize("more_px", [0, 1])
def test_only_images_up_to_a_size_are_taken_aside(more_px: int) -> None:
    turns = Turns()
    put(turns, turns.join(), LARGE_PX, engine=TWO_AT_ONCE)
    take(turns)
    asked = put(turns, turns.join(), LEAST_SIDE_ASIDE_PX + more_px, engine=TWO_AT_ONCE)
    assert asked.may_go_aside == (not more_px)


def test_an_image_of_many_small_windows_is_no_small_image() -> None:
    turns = Turns()
    queue = turns.join()
    count = ASIDE_PX // LARGE_PX**2
    asks = [put(turns, queue, LARGE_PX, engine=TWO_AT_ONCE) for _ in range(count)]
    assert asks[0].may_go_aside
    put(turns, queue, LARGE_PX, engine=TWO_AT_ONCE)
    assert not asks[0].may_go_aside


def test_nothing_is_taken_aside_from_a_device_that_does_one_thing_at_a_time() -> None:
    turns = Turns()
    assert not put(turns, turns.join(), SMALL_PX).may_go_aside


def test_what_was_taken_aside_is_charged_like_the_rest() -> None:
    """An image of four windows that had one aside has its turn after one that had none."""
    turns = Turns()
    a, b = turns.join(), turns.join()
    put(turns, turns.join(), LARGE_PX)
    take(turns)
    for _ in range(3):
        put(turns, a, SMALL_PX, engine=TWO_AT_ONCE)
        put(turns, b, SMALL_PX)
    assert getattr(turns.take_aside(), "queue", None) is a
    assert [take(turns)[0].queue for _ in range(2)] == [b, a]


def test_who_waits_to_take_aside_is_let_go_at_the_end() -> None:
    turns = Turns()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(turns.take_aside)
        turns.close(TimeoutError())
        assert taken.result(20) is None


def test_the_first_of_several_windows_is_not_taken_aside_however_small() -> None:
    queue = Turns().join()
    first = Ask(queue, TWO_AT_ONCE, np.zeros((8, 8, 3), np.uint8), 1, False, is_last=False)
    assert not first.may_go_aside
    assert replace(first, is_last=True).may_go_aside


def test_keys_share_the_device_however_many_images_each_has() -> None:
    turns = Turns()
    crowd = [turns.join(key_id=1) for _ in range(3)]
    single = turns.join(key_id=2)
    for queue in crowd:
        for _ in range(2):
            put(turns, queue, LARGE_PX)
    for _ in range(6):
        put(turns, single, LARGE_PX)
    assert served(turns, 12, *crowd, single) == "adbdcdadbdcd"


def test_a_key_that_comes_later_has_its_share_at_once_and_no_more() -> None:
    turns = Turns()
    crowd = [turns.join(key_id=1) for _ in range(2)]
    for queue in crowd:
        for _ in range(20):
            put(turns, queue, LARGE_PX)
    assert served(turns, 8, *crowd) == "abababab"
    late = turns.join(key_id=2)
    for _ in range(4):
        put(turns, late, LARGE_PX)
    order = served(turns, 8, *crowd, late)
    assert order.count("c") == 4
    assert served(turns, 4, *crowd, late).count("c") == 0


def test_a_small_image_goes_before_the_large_ones_of_its_own_key() -> None:
    turns = Turns()
    large, small = turns.join(key_id=1), turns.join(key_id=1)
    for _ in range(6):
        put(turns, large, LARGE_PX)
    assert served(turns, 3, large) == "aaa"
    put(turns, small, SMALL_PX)
    assert served(turns, 2, large, small) == "ba"


def test_windows_of_different_keys_share_a_batch() -> None:
    turns = Turns()
    queues = [turns.join(key_id=number // 2) for number in range(4)]
    for queue in queues:
        put(turns, queue, LARGE_PX)
    assert len(take(turns, most=8)) == 4


def test_a_key_that_withdraws_its_images_leaves_nothing_waiting() -> None:
    turns = Turns()
    queues = [turns.join(key_id=1) for _ in range(2)]
    for queue in queues:
        put(turns, queue, LARGE_PX)
        turns.leave(queue, ValueError("gone"))
    assert queues[0].key is queues[1].key
    assert queues[0].key.waiting == 0
    assert take(turns) == []
    other = turns.join(key_id=2)
    put(turns, other, LARGE_PX)
    assert len(take(turns)) == 1


def test_keys_without_images_are_forgotten() -> None:
    turns = Turns()
    for key_id in range(50):
        turns.join(key_id=key_id)
    assert len(turns._keys) <= 1


def test_a_share_is_of_the_devices_time_and_not_of_pixels() -> None:
    turns = Turns()
    slow, fast = turns.join(), turns.join()
    for _ in range(8):
        put(turns, slow, LARGE_PX, s_per_px=4 * USUAL_S_PER_PX)
        put(turns, fast, LARGE_PX)
    assert served(turns, 9, slow, fast).count("b") >= 7


def test_two_queues_of_one_image_use_one_share() -> None:
    turns = Turns()
    first, other = turns.join(), turns.join()
    beside = turns.join(beside=first)
    for queue in (first, beside, other):
        for _ in range(6):
            put(turns, queue, LARGE_PX)
    assert served(turns, 6, first, beside, other).count("c") == 3


@pytest.mark.parametrize(("more_s", "is_taken"), [(0.0, True), (0.001, False)])
def test_what_costs_much_does_not_go_aside_however_small_it_is(
    more_s: float, is_taken: bool
) -> None:
    turns = Turns()
    put(turns, turns.join(), LARGE_PX, engine=TWO_AT_ONCE)
    take(turns)
    s_per_px = (ASIDE_S + more_s) / SMALL_PX**2
    ask = put(turns, turns.join(), SMALL_PX, engine=TWO_AT_ONCE, s_per_px=s_per_px)
    assert ask.may_go_aside == is_taken
    if is_taken:
        assert turns.take_aside() is ask
