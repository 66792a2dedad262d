import asyncio
from dataclasses import dataclass, replace
from typing import cast

import pytest

from tests.service.pool.pools import request
from upscaled.pool.cost import SMALL_RESULT_PX, Estimate
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.queue import Line, LineFull
from upscaled.pool.room import Place
from upscaled.pool.worker_process import WorkerProcess


@dataclass(eq=False)
class Named:
    """All that a line knows of a worker."""

    is_alive: bool = True


def make_worker(*, is_alive: bool = True) -> WorkerProcess:
    return cast("WorkerProcess", Named(is_alive))


SMALL = request(width_px=64, height_px=64)
SLOW = replace(SMALL, model="slow")
LARGE = request(width_px=1500, height_px=1500)  # two of them are a worker's limit
MIDDLE = request(width_px=700, height_px=700)


S_PER_PX = 2**-20  # sums of it are exact


def estimate(request: UpscaleRequest) -> Estimate:
    """About a microsecond for each pixel of the result, ten with a model that is named."""
    is_small = not request.model and request.result_px <= SMALL_RESULT_PX
    return Estimate(max(1, request.result_px) * (10 if request.model else 1) * S_PER_PX, is_small)


def line_of(*workers: WorkerProcess, max_waiting: int = 5, places: int = 1) -> Line:
    line = Line(max_waiting, estimate)
    for worker in workers:
        line.join(worker, places)
    return line


async def start(line: Line, request: UpscaleRequest, **how: bool) -> "asyncio.Task[Place]":
    """Someone who takes a place, or waits for one."""
    task = asyncio.create_task(line.take(request, **how))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def are_seated(*tasks: "asyncio.Task[Place]") -> str:
    """A letter for each: y or n."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return "".join("y" if task.done() else "n" for task in tasks)


async def test_a_turn_that_comes_in_the_moment_it_is_given_up_goes_to_the_next() -> None:
    worker = make_worker()
    line = line_of()
    first = await start(line, SMALL)
    second = await start(line, SMALL)
    line.join(worker, 1)  # the first has its turn, but has not woken up to take it
    first.cancel()
    assert (await second).worker is worker
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_turn_given_up_with_nobody_behind_leaves_the_worker_idle() -> None:
    worker = make_worker()
    line = line_of()
    only = await start(line, SMALL)
    line.join(worker, 1)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    assert (await line.take(SMALL)).worker is worker


async def test_a_worker_that_died_while_idle_is_never_handed_out() -> None:
    alive = make_worker()
    line = line_of(make_worker(is_alive=False), alive)
    assert (await line.take(SMALL)).worker is alive


async def test_a_withdrawn_worker_is_never_handed_out() -> None:
    worker = make_worker()
    line = line_of(worker, max_waiting=0)
    line.withdraw(worker)
    line.withdraw(worker)
    with pytest.raises(LineFull):
        await line.take(SMALL)


async def test_a_place_of_a_worker_that_is_gone_can_still_be_given_back() -> None:
    worker = make_worker()
    line = line_of(worker)
    place = await line.take(SMALL)
    line.withdraw(worker)
    line.release(place)
    assert line.is_full is False


async def test_a_retry_goes_first_and_needs_no_place() -> None:
    line, worker = line_of(max_waiting=1), make_worker()
    waiting = await start(line, SMALL)
    again = await start(line, SMALL, is_again=True, is_alone=True)
    line.join(worker, 1)
    assert (await again).worker is worker
    assert not waiting.done()
    line.dismiss(ValueError("closed"))
    with pytest.raises(ValueError, match="closed"):
        await waiting


async def test_a_closed_line_dismisses_who_waits_and_who_comes() -> None:
    line = line_of()
    waiting = await start(line, SMALL)
    line.close(ValueError("closed"))
    for each in (waiting, line.take(SMALL), line.take(SMALL, is_again=True)):
        with pytest.raises(ValueError, match="closed"):
            await each


async def test_places_are_given_at_the_worker_with_least_under_way() -> None:
    a, b = make_worker(), make_worker()
    line = line_of(a, b, places=3)
    assert [(await line.take(SMALL)).worker for _ in range(6)] == [a, b, a, b, a, b]
    assert await are_seated(await start(line, SMALL)) == "n"


async def test_large_images_share_a_limit_in_pixels_and_small_ones_pass() -> None:
    line = line_of(make_worker(), places=10)
    tasks = [await start(line, LARGE) for _ in range(3)]
    small = [await start(line, SMALL) for _ in range(3)]
    assert await are_seated(*tasks, *small) == "yyn" + "yyy"
    line.release(tasks[0].result())
    assert await are_seated(*tasks) == "yyy"
    line.dismiss(ValueError())


async def test_deep_images_take_twice_the_room() -> None:
    line = line_of(make_worker(), places=10)
    deep = request(width_px=LARGE.width_px, height_px=LARGE.height_px, is_deep=True)
    assert await are_seated(*[await start(line, each) for each in (deep, deep)]) == "yn"
    line.dismiss(ValueError())


async def test_an_image_larger_than_the_limit_goes_in_when_no_other_large_one_is_there() -> None:
    line = line_of(make_worker(), places=4)
    huge = await start(line, request(width_px=6000, height_px=6000))
    assert await are_seated(huge, await start(line, SMALL)) == "yy"


async def test_the_last_place_is_never_a_large_ones() -> None:
    line = line_of(make_worker(), places=4)
    middle = [await start(line, MIDDLE) for _ in range(4)]
    small = [await start(line, SMALL) for _ in range(2)]
    assert await are_seated(*middle, *small) == "yyyn" + "yn"
    line.release(small[0].result())
    assert await are_seated(*middle, *small) == "yyyn" + "yy"
    line.release(middle[1].result())
    assert await are_seated(*middle) == "yyyy"


async def test_a_large_image_that_waits_is_passed_by_no_other_large_one() -> None:
    line = line_of(make_worker(), places=9)
    large = [await start(line, LARGE) for _ in range(3)]
    middle = await start(line, MIDDLE)
    line.release(large[0].result())
    assert await are_seated(*large, middle) == "yyy" + "n"
    line.release(large[1].result())
    assert await are_seated(middle) == "y"


async def test_many_small_images_do_not_keep_a_large_one_from_its_place() -> None:
    line = line_of(make_worker(), places=4)
    small = [await start(line, SMALL) for _ in range(4)]
    large = await start(line, LARGE)
    late = await start(line, SMALL)
    line.release(small[0].result())
    assert await are_seated(large, late) == "yn"


async def test_one_that_is_to_be_alone_waits_for_an_empty_worker_and_then_keeps_it() -> None:
    line = line_of(make_worker(), places=4)
    before = [await start(line, SMALL) for _ in range(2)]
    alone = await start(line, SMALL, is_again=True, is_alone=True)
    after = await start(line, SMALL)
    assert await are_seated(*before, alone, after) == "yynn"
    for task in before:
        line.release(task.result())
    assert await are_seated(alone, after) == "yn"
    line.release(alone.result())
    assert await are_seated(after) == "y"


async def test_while_one_worker_empties_for_one_alone_the_others_go_on() -> None:
    a, b = make_worker(), make_worker()
    line = line_of(a, b, places=2)
    at_a, at_b = await start(line, SMALL), await start(line, SMALL)
    alone = await start(line, SMALL, is_again=True, is_alone=True)
    more = await start(line, SMALL)
    assert await are_seated(at_a, at_b, alone, more) == "yyny"
    assert more.result().worker is b
    line.release(at_a.result())
    assert await are_seated(alone) == "y"
    assert alone.result().worker is a


async def test_the_line_is_full_only_where_a_large_image_would_be_sent_away() -> None:
    line = line_of(make_worker(), max_waiting=0, places=4)
    fullness = [line.is_full]
    large = [await start(line, LARGE) for _ in range(2)]
    fullness.append(line.is_full)
    with pytest.raises(LineFull):
        await line.take(LARGE)
    assert (await line.take(SMALL)).request is SMALL
    line.release(large[0].result())
    assert [*fullness, line.is_full] == [False, True, False]


async def test_who_gives_up_lets_those_behind_pass() -> None:
    line = line_of(make_worker(), places=9)
    large = [await start(line, LARGE) for _ in range(3)]
    middle = await start(line, MIDDLE)
    large[2].cancel()
    assert await are_seated(middle) == "n"  # two large ones are still the limit
    line.release(large[0].result())
    assert await are_seated(middle) == "y"


async def test_each_worker_has_as_many_places_as_it_said() -> None:
    line, one, three = line_of(), make_worker(), make_worker()
    line.join(one, 1)
    line.join(three, 3)
    tasks = [await start(line, SMALL) for _ in range(5)]
    assert await are_seated(*tasks) == "yyyyn"
    assert [task.result().worker for task in tasks[:4]].count(three) == 3
    tasks[4].cancel()


def of_key(key_id: int, like: UpscaleRequest = SMALL) -> UpscaleRequest:
    return replace(like, key_id=key_id)


async def test_a_key_that_comes_to_a_full_queue_takes_the_newest_place_of_the_key_with_most() -> (
    None
):
    line = line_of(max_waiting=3)
    flood = [await start(line, of_key(1)) for _ in range(3)]
    assert line.is_full is False
    with pytest.raises(LineFull, match="queue is full"):
        await line.take(of_key(1))
    other = await start(line, of_key(2))
    assert await are_seated(*flood, other) == "nnyn"
    with pytest.raises(LineFull, match="gave way") as caught:
        await flood[2]
    assert caught.value.gave_way
    line.join(make_worker(), 9)
    assert await are_seated(*flood, other) == "yyyy"


async def test_a_key_with_its_share_of_the_queue_is_refused_like_any() -> None:
    line = line_of(max_waiting=4)
    tasks = [await start(line, of_key(key_id)) for key_id in (1, 1, 2, 2)]
    for key_id in (1, 2):
        with pytest.raises(LineFull):
            await line.take(of_key(key_id))
    assert await are_seated(*tasks) == "nnnn"
    line.dismiss(ValueError())


async def test_who_has_a_slot_keeps_it_whatever_comes() -> None:
    line = line_of(make_worker(), max_waiting=1)
    place = await line.take(of_key(1))
    waiting = await start(line, of_key(1))
    others = [await start(line, of_key(key_id)) for key_id in range(2, 9)]
    for refused in (waiting, *others[1:]):
        with pytest.raises(LineFull):
            await refused
    assert await are_seated(others[0]) == "n"
    line.release(place)
    assert await are_seated(others[0]) == "y"


async def test_slots_go_to_the_keys_in_turn() -> None:
    line = line_of(make_worker(), max_waiting=99)
    at_work = await line.take(of_key(1))
    flood = [await start(line, of_key(1)) for _ in range(20)]
    others = [await start(line, of_key(2)) for _ in range(3)]
    order = []
    for _ in range(7):
        line.release(at_work)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (task,) = (task for task in (*flood, *others) if task.done())
        order.append("o" if task in others else "f")
        at_work = task.result()
        (others if task in others else flood).remove(task)
    assert "".join(order) == "ofofoff"
    line.dismiss(ValueError())


async def test_small_images_of_one_key_do_not_keep_a_large_one_of_another_from_its_slot() -> None:
    """Its share is of seconds, so it waits for its first slot only, and is then ahead for long."""
    line = line_of(make_worker(), max_waiting=99, places=4)
    at_work = [await line.take(of_key(1)) for _ in range(4)]
    flood = [await start(line, of_key(1)) for _ in range(50)]
    large = [await start(line, of_key(2, LARGE)) for _ in range(2)]
    line.release(at_work[0])
    assert await are_seated(*large) == "yn"
    line.release(at_work[1])
    assert await are_seated(*large) == "yn"
    assert sum(task.done() for task in flood) == 1
    line.dismiss(ValueError())


async def test_a_small_image_of_any_key_passes_a_large_one_that_finds_no_room() -> None:
    line = line_of(make_worker(), places=4)
    large = [await start(line, of_key(1, LARGE)) for _ in range(4)]
    assert await are_seated(*large) == "yynn"
    another = await start(line, of_key(2, LARGE))
    small = [await start(line, of_key(key_id)) for key_id in (2, 1)]
    assert await are_seated(another, *small) == "nyy"
    line.release(large[0].result())
    assert await are_seated(another, *large) == "y" + "yynn"
    line.dismiss(ValueError())


async def test_a_picture_of_few_pixels_by_a_slow_model_is_no_small_one() -> None:
    line = line_of(make_worker(), places=4)
    slow = [await start(line, SLOW) for _ in range(4)]
    small = await start(line, SMALL)
    assert await are_seated(*slow, small) == "yyyn" + "y"
    line.release(small.result())
    assert await are_seated(slow[3]) == "n"
    line.release(slow[0].result())
    assert await are_seated(slow[3]) == "y"


async def test_a_key_that_names_a_slow_model_is_served_as_much_less_often() -> None:
    line = line_of(make_worker(), max_waiting=99)
    at_work = await line.take(of_key(1))
    slow = [await start(line, of_key(1, SLOW)) for _ in range(5)]
    fast = [await start(line, of_key(2)) for _ in range(25)]
    order = []
    for _ in range(22):
        line.release(at_work)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (task,) = (task for task in (*slow, *fast) if task.done())
        order.append("s" if task in slow else "f")
        at_work = task.result()
        (slow if task in slow else fast).remove(task)
    assert "".join(order) == "fs" + 9 * "f" + "s" + 10 * "f"
    line.dismiss(ValueError())


async def test_the_seconds_that_wait_are_counted_by_key_those_that_come_again_too() -> None:
    line = line_of()
    for asked, how in (
        (of_key(1), {}),
        (of_key(1, SLOW), {}),
        (of_key(2), {}),
        (of_key(3), {"is_again": True}),
    ):
        await start(line, asked, **how)
    small_s = 64 * 64 * 16 * S_PER_PX
    assert line.waiting_s() == {1: 11 * small_s, 2: small_s, 3: small_s}
    line.dismiss(ValueError())


async def test_a_retry_is_not_charged_again() -> None:
    line, worker = line_of(max_waiting=9), make_worker()
    line.join(worker, 1)
    for _ in range(3):
        place = await line.take(of_key(1, LARGE), is_again=True)
        line.release(place)
    first, second = [await start(line, of_key(key_id)) for key_id in (1, 2)]
    assert await are_seated(first, second) == "yn"
    line.release(first.result())
    assert await are_seated(second) == "y"


async def test_what_a_line_tells_of_keys() -> None:
    line = line_of(max_waiting=9)
    assert (line.waiting, line.keys_waiting, line.most_of_one_key) == (0, 0, 0)
    for key_id in (1, 2, 2, 2):
        await start(line, of_key(key_id))
    assert (line.waiting, line.keys_waiting, line.most_of_one_key) == (4, 2, 3)
    line.dismiss(ValueError())
