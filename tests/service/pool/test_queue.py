import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.service.pool.pools import request
from upscaled.pool.cost import SMALL_RESULT_PX, CostEstimate, CostModel
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.queue import QueueFull, RequestQueue
from upscaled.pool.slots import Slot
from upscaled.pool.worker_process import WorkerProcess
from upscaled_models.store import ModelStore


@dataclass(eq=False)
class Named:
    """All that a queue knows of a worker."""

    is_alive: bool = True
    device: str = "cpu"


def make_worker(*, is_alive: bool = True, device: str = "cpu") -> WorkerProcess:
    return cast("WorkerProcess", Named(is_alive, device))


SMALL = request(width_px=64, height_px=64)
SLOW = replace(SMALL, model="slow")
LARGE = request(width_px=1500, height_px=1500)  # two of them are a worker's limit
MIDDLE = request(width_px=700, height_px=700)


S_PER_PX = 2**-20  # sums of it are exact


class PixelCost(CostModel):
    """About a microsecond for each pixel of the result, ten with a model that is named."""

    def estimate(self, request: UpscaleRequest) -> CostEstimate:
        is_small = not request.model and request.result_px <= SMALL_RESULT_PX
        factor = 10 if request.model else 1
        return CostEstimate(max(1, request.result_px) * factor * S_PER_PX, is_small)


def make_queue(*workers: WorkerProcess, max_waiting: int = 5, slots: int = 1) -> RequestQueue:
    queue = RequestQueue(max_waiting, PixelCost(ModelStore(Path("/nowhere"))))
    for worker in workers:
        queue.add_worker(worker, slots)
    return queue


async def start(queue: RequestQueue, request: UpscaleRequest, **how: Any) -> "asyncio.Task[Slot]":
    """A task that has a slot, or waits for one."""
    task = asyncio.create_task(queue.acquire(request, **how))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def serve(
    queue: RequestQueue, at_work: Slot, times: int, **tasks: "list[asyncio.Task[Slot]]"
) -> str:
    """Release the only slot so many times; the letters of those that had it then, in order."""
    order = ""
    for _ in range(times):
        queue.release(at_work)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ((letter, task),) = ((name, each) for name in tasks for each in tasks[name] if each.done())
        tasks[letter].remove(task)
        at_work = task.result()
        order += letter
    queue.dismiss(ValueError())
    return order


async def have_slots(*tasks: "asyncio.Task[Slot]") -> str:
    """A letter for each: y or n."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return "".join("y" if task.done() else "n" for task in tasks)


async def test_a_slot_of_a_request_that_is_cancelled_meanwhile_is_given_to_the_next() -> None:
    worker = make_worker()
    queue = make_queue()
    first = await start(queue, SMALL)
    second = await start(queue, SMALL)
    queue.add_worker(worker, 1)  # the first has its slot, but has not woken up to take it
    first.cancel()
    assert (await second).worker is worker
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_slot_of_a_cancelled_request_stays_free_if_no_other_waits() -> None:
    worker = make_worker()
    queue = make_queue()
    only = await start(queue, SMALL)
    queue.add_worker(worker, 1)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    assert (await queue.acquire(SMALL)).worker is worker


async def test_a_slot_of_a_worker_that_died_while_idle_is_never_handed_out() -> None:
    alive = make_worker()
    queue = make_queue(make_worker(is_alive=False), alive)
    assert (await queue.acquire(SMALL)).worker is alive


async def test_a_slot_of_a_removed_worker_is_never_handed_out() -> None:
    worker = make_worker()
    queue = make_queue(worker, max_waiting=0)
    queue.remove_worker(worker)
    queue.remove_worker(worker)
    with pytest.raises(QueueFull):
        await queue.acquire(SMALL)


async def test_a_slot_of_a_worker_that_is_gone_can_still_be_released() -> None:
    worker = make_worker()
    queue = make_queue(worker)
    slot = await queue.acquire(SMALL)
    queue.remove_worker(worker)
    queue.release(slot)
    assert queue.is_full is False


async def test_a_retry_is_first_and_is_admitted_to_a_full_queue() -> None:
    queue, worker = make_queue(max_waiting=1), make_worker()
    waiting = await start(queue, SMALL)
    again = await start(queue, SMALL, is_retry=True)
    queue.add_worker(worker, 1)
    assert (await again).worker is worker
    assert not waiting.done()
    queue.dismiss(ValueError("closed"))
    with pytest.raises(ValueError, match="closed"):
        await waiting


async def test_a_closed_queue_refuses_waiting_and_later_requests() -> None:
    queue = make_queue()
    waiting = await start(queue, SMALL)
    queue.close(ValueError("closed"))
    for each in (waiting, queue.acquire(SMALL), queue.acquire(SMALL, is_retry=True)):
        with pytest.raises(ValueError, match="closed"):
            await each


async def test_slots_are_assigned_at_the_worker_with_least_in_flight() -> None:
    a, b = make_worker(), make_worker()
    queue = make_queue(a, b, slots=3)
    assert [(await queue.acquire(SMALL)).worker for _ in range(6)] == [a, b, a, b, a, b]
    assert await have_slots(await start(queue, SMALL)) == "n"


async def test_large_images_share_a_limit_in_pixels_and_small_ones_pass() -> None:
    queue = make_queue(make_worker(), slots=10)
    tasks = [await start(queue, LARGE) for _ in range(3)]
    small = [await start(queue, SMALL) for _ in range(3)]
    assert await have_slots(*tasks, *small) == "yyn" + "yyy"
    queue.release(tasks[0].result())
    assert await have_slots(*tasks) == "yyy"
    queue.dismiss(ValueError())


async def test_deep_images_count_twice_their_pixels() -> None:
    queue = make_queue(make_worker(), slots=10)
    deep = request(width_px=LARGE.width_px, height_px=LARGE.height_px, is_deep=True)
    assert await have_slots(*[await start(queue, each) for each in (deep, deep)]) == "yn"
    queue.dismiss(ValueError())


async def test_an_image_larger_than_the_limit_runs_when_no_other_large_one_does() -> None:
    queue = make_queue(make_worker(), slots=4)
    huge = await start(queue, request(width_px=6000, height_px=6000))
    assert await have_slots(huge, await start(queue, SMALL)) == "yy"


async def test_a_large_image_never_gets_the_last_slot() -> None:
    queue = make_queue(make_worker(), slots=4)
    middle = [await start(queue, MIDDLE) for _ in range(4)]
    small = [await start(queue, SMALL) for _ in range(2)]
    assert await have_slots(*middle, *small) == "yyyn" + "yn"
    queue.release(small[0].result())
    assert await have_slots(*middle, *small) == "yyyn" + "yy"
    queue.release(middle[1].result())
    assert await have_slots(*middle) == "yyyy"


async def test_a_large_image_that_waits_is_passed_by_no_other_large_one() -> None:
    queue = make_queue(make_worker(), slots=9)
    large = [await start(queue, LARGE) for _ in range(3)]
    middle = await start(queue, MIDDLE)
    queue.release(large[0].result())
    assert await have_slots(*large, middle) == "yyy" + "n"
    queue.release(large[1].result())
    assert await have_slots(middle) == "y"


async def test_many_small_images_do_not_keep_a_large_one_from_its_slot() -> None:
    queue = make_queue(make_worker(), slots=4)
    small = [await start(queue, SMALL) for _ in range(4)]
    large = await start(queue, LARGE)
    late = await start(queue, SMALL)
    queue.release(small[0].result())
    assert await have_slots(large, late) == "yn"


async def test_a_retry_waits_for_an_empty_worker_and_then_has_it_alone() -> None:
    queue = make_queue(make_worker(), slots=4)
    before = [await start(queue, SMALL) for _ in range(2)]
    alone = await start(queue, SMALL, is_retry=True)
    after = await start(queue, SMALL)
    assert await have_slots(*before, alone, after) == "yynn"
    for task in before:
        queue.release(task.result())
    assert await have_slots(alone, after) == "yn"
    queue.release(alone.result())
    assert await have_slots(after) == "y"


async def test_while_one_worker_is_drained_for_a_retry_the_others_continue() -> None:
    a, b = make_worker(), make_worker()
    queue = make_queue(a, b, slots=2)
    at_a, at_b = await start(queue, SMALL), await start(queue, SMALL)
    alone = await start(queue, SMALL, is_retry=True)
    more = await start(queue, SMALL)
    assert await have_slots(at_a, at_b, alone, more) == "yyny"
    assert more.result().worker is b
    queue.release(at_a.result())
    assert await have_slots(alone) == "y"
    assert alone.result().worker is a


async def test_the_queue_is_full_only_where_a_large_image_would_be_refused() -> None:
    queue = make_queue(make_worker(), max_waiting=0, slots=4)
    fullness = [queue.is_full]
    large = [await start(queue, LARGE) for _ in range(2)]
    fullness.append(queue.is_full)
    with pytest.raises(QueueFull):
        await queue.acquire(LARGE)
    assert (await queue.acquire(SMALL)).request is SMALL
    queue.release(large[0].result())
    assert [*fullness, queue.is_full] == [False, True, False]


async def test_a_cancelled_request_lets_those_behind_pass() -> None:
    queue = make_queue(make_worker(), slots=9)
    large = [await start(queue, LARGE) for _ in range(3)]
    middle = await start(queue, MIDDLE)
    large[2].cancel()
    assert await have_slots(middle) == "n"  # two large ones are still the limit
    queue.release(large[0].result())
    assert await have_slots(middle) == "y"


async def test_each_worker_has_as_many_slots_as_it_reported() -> None:
    queue, one, three = make_queue(), make_worker(), make_worker()
    queue.add_worker(one, 1)
    queue.add_worker(three, 3)
    tasks = [await start(queue, SMALL) for _ in range(5)]
    assert await have_slots(*tasks) == "yyyyn"
    assert [task.result().worker for task in tasks[:4]].count(three) == 3
    tasks[4].cancel()


def of_key(key_id: int, like: UpscaleRequest = SMALL) -> UpscaleRequest:
    return replace(like, key_id=key_id)


async def test_the_newest_request_of_the_key_with_most_gives_way_to_another_key() -> None:
    queue = make_queue(max_waiting=3)
    flood = [await start(queue, of_key(1)) for _ in range(3)]
    assert queue.is_full is False
    with pytest.raises(QueueFull, match="queue is full"):
        await queue.acquire(of_key(1))
    other = await start(queue, of_key(2))
    assert await have_slots(*flood, other) == "nnyn"
    with pytest.raises(QueueFull, match="gave way") as caught:
        await flood[2]
    assert caught.value.gave_way
    queue.add_worker(make_worker(), 9)
    assert await have_slots(*flood, other) == "yyyy"


async def test_a_key_with_its_share_of_the_queue_is_refused_like_any() -> None:
    queue = make_queue(max_waiting=4)
    tasks = [await start(queue, of_key(key_id)) for key_id in (1, 1, 2, 2)]
    for key_id in (1, 2):
        with pytest.raises(QueueFull):
            await queue.acquire(of_key(key_id))
    assert await have_slots(*tasks) == "nnnn"
    queue.dismiss(ValueError())


async def test_a_request_keeps_its_slot_whatever_arrives_later() -> None:
    queue = make_queue(make_worker(), max_waiting=1)
    slot = await queue.acquire(of_key(1))
    waiting = await start(queue, of_key(1))
    others = [await start(queue, of_key(key_id)) for key_id in range(2, 9)]
    for refused in (waiting, *others[1:]):
        with pytest.raises(QueueFull):
            await refused
    assert await have_slots(others[0]) == "n"
    queue.release(slot)
    assert await have_slots(others[0]) == "y"


async def test_slots_alternate_between_the_keys() -> None:
    queue = make_queue(make_worker(), max_waiting=99)
    at_work = await queue.acquire(of_key(1))
    flood = [await start(queue, of_key(1)) for _ in range(20)]
    others = [await start(queue, of_key(2)) for _ in range(3)]
    assert await serve(queue, at_work, 7, f=flood, o=others) == "ofofoff"


async def test_small_images_of_one_key_do_not_keep_a_large_one_of_another_from_its_slot() -> None:
    """Its share is of seconds, so it waits for its first slot only, and is then ahead for long."""
    queue = make_queue(make_worker(), max_waiting=99, slots=4)
    at_work = [await queue.acquire(of_key(1)) for _ in range(4)]
    flood = [await start(queue, of_key(1)) for _ in range(50)]
    large = [await start(queue, of_key(2, LARGE)) for _ in range(2)]
    queue.release(at_work[0])
    assert await have_slots(*large) == "yn"
    queue.release(at_work[1])
    assert await have_slots(*large) == "yn"
    assert sum(task.done() for task in flood) == 1
    queue.dismiss(ValueError())


async def test_a_small_image_of_any_key_passes_a_large_one_that_does_not_fit() -> None:
    queue = make_queue(make_worker(), slots=4)
    large = [await start(queue, of_key(1, LARGE)) for _ in range(4)]
    assert await have_slots(*large) == "yynn"
    another = await start(queue, of_key(2, LARGE))
    small = [await start(queue, of_key(key_id)) for key_id in (2, 1)]
    assert await have_slots(another, *small) == "nyy"
    queue.release(large[0].result())
    assert await have_slots(another, *large) == "y" + "yynn"
    queue.dismiss(ValueError())


async def test_an_image_of_few_pixels_by_a_slow_model_is_not_small() -> None:
    queue = make_queue(make_worker(), slots=4)
    slow = [await start(queue, SLOW) for _ in range(4)]
    small = await start(queue, SMALL)
    assert await have_slots(*slow, small) == "yyyn" + "y"
    queue.release(small.result())
    assert await have_slots(slow[3]) == "n"
    queue.release(slow[0].result())
    assert await have_slots(slow[3]) == "y"


async def test_a_key_that_names_a_slow_model_is_served_as_much_less_often() -> None:
    queue = make_queue(make_worker(), max_waiting=99)
    at_work = await queue.acquire(of_key(1))
    slow = [await start(queue, of_key(1, SLOW)) for _ in range(5)]
    fast = [await start(queue, of_key(2)) for _ in range(25)]
    order = await serve(queue, at_work, 22, s=slow, f=fast)
    assert order == "fs" + 9 * "f" + "s" + 10 * "f"


@pytest.mark.parametrize(
    ("key_id", "model", "small_images"),
    [
        # A key that floods waits for its own work, and a fair part of each other key's.
        (1, "", 11 + 1 + 1),
        # One with less waits for as much of the first as its own and one more.
        (2, "", 1 + 2 + 1),
        (4, "", 1 + 1 + 1),  # one with nothing waiting
        (4, "slow", 10 + 1 + 1),
    ],
)
async def test_a_flooding_key_lengthens_the_wait_of_another_by_its_share_at_most(
    key_id: int, model: str, small_images: int
) -> None:
    queue = make_queue(make_worker(), slots=2)
    for part in (0, 1 / 2):  # of tiles that are done
        (await queue.acquire(of_key(5))).done_part = part
    for work, how in (
        (of_key(1), {}),
        (of_key(1, SLOW), {}),
        (of_key(2), {}),
        (of_key(3), {"is_retry": True}),
    ):
        await start(queue, work, **how)
    work_s = queue.work_before_s(of_key(key_id, replace(SMALL, model=model)))
    assert work_s == (1.5 + small_images) * 64 * 64 * 16 * S_PER_PX
    queue.dismiss(ValueError())


async def test_a_retry_is_not_charged_again() -> None:
    queue, worker = make_queue(max_waiting=9), make_worker()
    queue.add_worker(worker, 1)
    for _ in range(3):
        slot = await queue.acquire(of_key(1, LARGE), is_retry=True)
        queue.release(slot)
    first, second = [await start(queue, of_key(key_id)) for key_id in (1, 2)]
    assert await have_slots(first, second) == "yn"
    queue.release(first.result())
    assert await have_slots(second) == "y"


async def test_waiting_requests_are_counted_by_key() -> None:
    queue = make_queue(max_waiting=9)
    assert (queue.waiting, queue.waiting_by_key()) == (0, {})
    for key_id in (1, 2, 2, 2):
        await start(queue, of_key(key_id))
    assert (queue.waiting, queue.waiting_by_key()) == (4, {1: 1, 2: 3})
    queue.dismiss(ValueError())


async def test_a_retry_waits_for_another_device_than_the_one_that_failed_it() -> None:
    one, other = make_worker(device="cuda:0"), make_worker(device="cuda:1")
    queue = make_queue(one, other)
    neighbour = await queue.acquire(SMALL)
    busy = one if neighbour.worker is other else other
    retry = await start(queue, SMALL, is_retry=True, avoided=busy.device)
    assert not retry.done()  # the free worker is of the device that failed
    queue.release(neighbour)
    assert (await retry).worker is neighbour.worker


async def test_a_retry_uses_the_same_device_where_there_is_no_other() -> None:
    dead, alive = make_worker(is_alive=False, device="cuda:1"), make_worker(device="cuda:0")
    queue = make_queue(dead, alive)
    assert (await queue.acquire(SMALL, is_retry=True, avoided="cuda:0")).worker is alive


async def test_an_image_that_a_device_failed_passes_others_and_shares_a_worker() -> None:
    one, other = make_worker(device="cuda:0"), make_worker(device="cuda:1")
    queue = make_queue(one, other, slots=2)
    held = [await queue.acquire(SMALL) for _ in range(4)]
    fresh = await start(queue, SMALL)
    failed = await start(queue, SMALL, avoided="cuda:0")
    queue.release(next(slot for slot in held if slot.worker is other))
    assert await have_slots(fresh, failed) == "ny"
    assert (await failed).worker is other
    queue.dismiss(ValueError())
    with pytest.raises(ValueError):
        await fresh


async def test_large_images_share_a_workers_own_part_of_the_memory() -> None:
    queue = make_queue()
    queue.add_worker(make_worker(), 9, 2 * MIDDLE.result_px)
    tasks = [await start(queue, MIDDLE) for _ in range(3)]
    assert [task.done() for task in tasks] == [True, True, False]
    queue.dismiss(ValueError())
    with pytest.raises(ValueError):
        await tasks[2]


async def test_no_more_images_that_a_device_failed_wait_than_may_and_one_always_may() -> None:
    for max_waiting, may_wait in ((0, 1), (2, 2)):
        one, other = make_worker(device="cuda:0"), make_worker(device="cuda:1")
        queue = make_queue(one, other, max_waiting=max_waiting)
        held = [await queue.acquire(SMALL) for _ in range(2)]
        failed = [await start(queue, SMALL, avoided="cuda:0") for _ in range(may_wait)]
        died = await start(queue, SMALL, is_retry=True, avoided="cuda:0")
        queue.release(next(slot for slot in held if slot.worker is one))  # which they avoid
        with pytest.raises(QueueFull):
            await asyncio.wait_for(queue.acquire(SMALL, avoided="cuda:0"), 1)
        died.cancel()  # the free worker is kept for it
        queue.release(next(slot for slot in held if slot.worker is other))
        assert await have_slots(failed[0]) == "y"
        last = await start(queue, SMALL, avoided="cuda:0")
        assert not last.done()
        queue.dismiss(ValueError())
        await asyncio.gather(*failed, died, last, return_exceptions=True)


async def test_an_image_does_not_avoid_a_device_any_more_once_no_other_is_left() -> None:
    one, other = make_worker(device="cuda:0"), make_worker(device="cuda:1")
    queue = make_queue(one, other)
    held = [await queue.acquire(SMALL) for _ in range(2)]
    failed = await start(queue, SMALL, avoided="cuda:0")
    queue.release(next(slot for slot in held if slot.worker is one))
    assert await have_slots(failed) == "n"
    queue.remove_worker(other)
    assert await have_slots(failed) == "y"
    assert (await failed).worker is one


async def test_a_large_image_that_avoids_a_device_keeps_others_from_other_devices_alone() -> None:
    one, other = make_worker(device="cuda:0"), make_worker(device="cuda:1")
    queue = make_queue(other, one)
    at_other = await queue.acquire(LARGE)
    avoiding = await start(queue, LARGE, avoided="cuda:0")
    fresh = [await start(queue, LARGE) for _ in range(2)]
    assert await have_slots(avoiding, *fresh) == "nyn"
    queue.release(at_other)
    assert await have_slots(avoiding, *fresh) == "yyn"
    assert ((await avoiding).worker, (await fresh[0]).worker) == (other, one)
    queue.dismiss(ValueError())
    with pytest.raises(ValueError):
        await fresh[1]
