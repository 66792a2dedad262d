"""Requests that wait: their order, the refusals of a full queue, and the promised waits."""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.pool.pools import (
    fake_command,
    giving_up,
    order,
    request,
    running_pool,
    send,
    until,
)
from upscaled.errors import RateLimitExceeded
from upscaled.pool.cost import MAX_RETRY_AFTER_S, estimate_wait_s
from upscaled.upscale.result import Result


async def test_two_workers_share_the_load() -> None:
    async with running_pool(workers=2) as pool:
        answers = await asyncio.gather(
            *(pool.upscale(order("answer", after_s=0.5), request()) for _ in range(4))
        )
    assert sorted(Counter(answer.model for answer in answers).values()) == [2, 2]


async def test_the_queue_holds_its_number_and_refuses_one_more_at_once() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=3) as pool:
        admitted = [
            send(pool, order("answer", after_s=0.3), request(str(number)))
            for number in range(1 + 3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(order("answer"), request("one more"))
        assert caught.value.reason == "queue"
        assert not any(task.done() for task in admitted)
        await asyncio.gather(*admitted)
        await pool.upscale(order("answer"), request("one more"))


async def test_without_a_queue_only_a_free_worker_gets_work() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=0) as pool:
        assert pool.is_ready()
        busy = send(pool, order("answer", after_s=0.3))
        await asyncio.sleep(0)
        assert not pool.is_ready()
        with pytest.raises(RateLimitExceeded):
            await pool.upscale(order("answer"), request())
        await busy


async def test_the_timings_include_the_wait_in_the_queue() -> None:
    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        begun = time.monotonic()
        first = send(pool, order("answer", after_s=1))
        await asyncio.sleep(0)
        second = await pool.upscale(order("answer"), request())
        waited_s = time.monotonic() - begun
        assert (await first).timings.queue_s < 0.9 < second.timings.queue_s < waited_s


async def test_one_worker_has_several_images_in_flight(tmp_path: Path) -> None:
    trace, may_end = tmp_path / "trace", tmp_path / "may end"
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        work = order("tiles", count=1, tile_s=0, trace=str(trace), until=str(may_end))
        jobs = [send(pool, work) for _ in range(4)]
        await until(lambda: trace.exists() and trace.read_text().count("\n") == 4)
        may_end.touch()
        answers = await asyncio.gather(*jobs)
    assert len({answer.model for answer in answers}) == 1


async def test_a_small_image_is_not_held_up_by_large_ones_in_flight_or_waiting() -> None:
    large = request(width_px=1500, height_px=1500)
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        slow = [send(pool, order("answer", after_s=600), large) for _ in range(5)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            for _ in range(10):
                await pool.upscale(order("answer"), request(width_px=64, height_px=64))
        assert not any(task.done() for task in slow)
        await pool.stop(0)
        await asyncio.gather(*slow, return_exceptions=True)


async def test_the_promised_wait_counts_what_is_left_of_images_in_flight(
    tmp_path: Path,
) -> None:
    async with running_pool(workers=1, jobs_per_worker=2, max_queue=1) as pool:
        begin, end = tmp_path / "begin", tmp_path / "end"
        tiles = order(
            "tiles", count=10, tile_s=0, trace=str(tmp_path / "trace"),
            gates={"0": str(begin), "5": str(end)},
        )  # fmt: skip
        work = request(width_px=200, height_px=200)  # 4 s each, says the warm-up
        async with giving_up(*(send(pool, tiles, work) for _ in range(3))):
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(tiles, request())
            assert caught.value.retry_after_s == 12
            begin.touch()
            await until(lambda: [slot.done_part for slot in pool._queue.in_flight()] == [0.5, 0.5])
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(tiles, request())
            assert caught.value.retry_after_s == 8


@pytest.mark.parametrize(
    ("waiting", "wait_s"),
    [
        # Seconds by model, before a picture of either was finished: 1 and 100 for 100x100 px.
        (["", "", ""], 1 + 3),
        (["", "slow", ""], 1 + 1 + 100 + 1),
        (["slow", "slow", "slow"], 1 + 300),
    ],
)
async def test_the_promised_wait_counts_each_image_by_its_model(
    waiting: list[str], wait_s: int
) -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=3) as pool:
        slow = order("answer", after_s=60)
        models = ["", *waiting]
        tasks = (send(pool, slow, replace(request(), model=model)) for model in models)
        async with giving_up(*tasks):
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(slow, request())
        assert caught.value.retry_after_s == wait_s


async def test_a_mixed_queue_of_auto_is_counted_by_the_model_of_each_image() -> None:
    """Up to 900 px the ladder takes a model that is 100 times as slow for a pixel."""
    command = fake_command("ladder")
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=2, command=command) as pool:
        slow = order("answer", after_s=60)
        sizes = [(100, 100), (30, 30), (30, 31)]  # 1 s, 9 s, 0.093 s
        works = (request(width_px=width, height_px=height) for width, height in sizes)
        async with giving_up(*(send(pool, slow, work) for work in works)):
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(slow, request())
            expectation = pool.expect(request(width_px=30, height_px=30))
            assert expectation.models == ("slow",)
            assert expectation.seconds == pytest.approx(9)
            assert pool.expect(request(width_px=30, height_px=31)).models == ("fake",)
        assert caught.value.retry_after_s == 11


async def test_after_the_promised_wait_of_a_mixed_queue_the_same_request_passes() -> None:
    """The slow model takes 0.9 s for a picture, its worker says, the fast one 0.09 s: here less."""
    command = fake_command("ladder")
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=2, command=command) as pool:
        small, large = request(width_px=9, height_px=10), request(width_px=30, height_px=31)
        admitted = [
            send(pool, order("answer", after_s=after_s), work)
            for work, after_s in ((small, 0.4), (large, 0.04), (small, 0.4))
        ]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(order("answer"), small)
        assert caught.value.retry_after_s == 2
        await asyncio.sleep(caught.value.retry_after_s)
        await pool.upscale(order("answer"), small)
        await asyncio.gather(*admitted)


async def test_the_time_of_a_model_corrects_its_own_estimate_only() -> None:
    async with running_pool(command=fake_command("ladder")) as pool:
        named = replace(request(), model="slow")
        before_s = pool.expect(request()).seconds
        await pool.upscale(order("answer", worked_s=0.05), named)
        assert 0.05 <= pool.expect(named).seconds < 1
        assert pool.expect(request()).seconds == before_s
        assert 5e-6 <= pool.stats().seconds_per_px[("slow", 4)] < 1e-4
        assert pool.stats().seconds_per_px[("fake", 4)] == 1e-4
        assert pool.stats().ladders[4][0].model == "slow"


async def test_one_keys_flood_refuses_no_other_key_and_each_gets_its_own_wait() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=4) as pool:
        slow = order("answer", after_s=0.3)

        def send_slow(key_id: int, number: int) -> "asyncio.Task[Result]":
            return send(pool, slow, request(f"{key_id} {number}", key_id=key_id))

        flood = [send_slow(1, number) for number in range(5)]
        await asyncio.sleep(0)
        assert pool.stats().waiting == 4
        assert pool.is_ready()  # for another key
        with pytest.raises(RateLimitExceeded) as own:
            await pool.upscale(slow, request(key_id=1))
        others = [send_slow(2, number) for number in range(2)]
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*others))
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, RateLimitExceeded)]
        assert [each.reason for each in refused] == ["gave_way", "gave_way"]
        assert all(1 <= each.retry_after_s <= own.value.retry_after_s for each in refused)
        assert outcomes[3:] == refused


@pytest.mark.parametrize(
    ("work_s", "workers", "starting_s", "wait_s"),
    [
        (0, 1, 0, 1),
        (0.2, 1, 0, 1),
        (20.5, 1, 0, 21),
        (20.5, 2, 0, 11),
        (10, 0, 0, 10),
        (10, 0, 2.5, 13),
        (1e9, 1, 0, MAX_RETRY_AFTER_S),
    ],
)
def test_the_wait_is_the_work_shared_out_behind_the_start(
    work_s: float, workers: int, starting_s: float, wait_s: int
) -> None:
    assert estimate_wait_s(work_s, workers, starting_s) == wait_s
