"""Supervision, queue and settlement, with real processes that obey their job (fake_worker.py)."""

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tests.service.pool.pools import (
    QUICK,
    fake_command,
    order,
    request,
    running_pool,
    until,
    workers_of,
)
from upscaled.config import load_settings
from upscaled.errors import InternalError, MalformedImage, RateLimitExceeded, ServiceError
from upscaled.pool.executor import OnTile, UpscaleRequest
from upscaled.pool.local import LocalPool
from upscaled.pool.messages import Answer, Job
from upscaled.pool.worker_process import WorkerProcess
from upscaled.process.child import ChildUnusable
from upscaled.process.supervision import Limits
from upscaled.upscale.result import Result


async def test_bytes_cross_intact_both_ways() -> None:
    source = order("echo") + os.urandom(3_000_000)
    async with running_pool() as pool:
        upscaled = await pool.upscale(source, request())
    assert upscaled.data == source
    assert type(upscaled.data) is bytes


async def test_the_largest_input_and_a_huge_result_cross() -> None:
    source = order("answer", size_bytes=100_000_000) + bytes(25_000_000)
    async with running_pool() as pool:
        upscaled = await pool.upscale(source, request())
    assert len(upscaled.data) == 100_000_000


async def test_a_refusal_is_the_same_error_on_this_side() -> None:
    async with running_pool() as pool:
        with pytest.raises(MalformedImage) as caught:
            await pool.upscale(order("refuse"), request())
    assert caught.value.public_text == "No image"


async def test_an_exception_in_a_job_is_internal_and_is_not_tried_again() -> None:
    async with running_pool() as pool:
        [worker] = workers_of(pool)
        with pytest.raises(InternalError, match="ZeroDivisionError") as caught:
            await pool.upscale(order("fail"), request())
        assert workers_of(pool) == [worker]
    assert caught.value.public_text == "Internal service error"


async def test_a_job_whose_worker_dies_is_tried_once_more(tmp_path: Path) -> None:
    async with running_pool() as pool:
        [first] = workers_of(pool)
        upscaled = await pool.upscale(order("die", marker=str(tmp_path / "m")), request())
        assert upscaled.model != f"fake {first.pid}"
        assert not psutil.pid_exists(first.pid)


async def test_a_job_that_kills_two_workers_fails_alone() -> None:
    async with running_pool(workers=1) as pool:
        poison = asyncio.create_task(pool.upscale(order("die"), request("poison")))
        others = [
            asyncio.create_task(pool.upscale(order("answer"), request(str(number))))
            for number in range(3)
        ]
        with pytest.raises(InternalError, match="2 workers died"):
            await poison
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*others))


async def test_a_death_in_company_counts_for_nobody(tmp_path: Path) -> None:
    """One that is killed beside another, then once more alone, is answered the third time."""
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        unlucky = order("die", after_s=0.2, marker=str(tmp_path / "m"), times=2)
        jobs = [
            asyncio.create_task(pool.upscale(source, request()))
            for source in (order("answer", after_s=0.5), unlucky)
        ]
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*jobs))
    assert (tmp_path / "m").read_text() == "xxx"


async def test_two_deaths_alone_are_the_images_own(tmp_path: Path) -> None:
    async with running_pool(workers=1) as pool:
        twice = order("die", marker=str(tmp_path / "m"), times=2)
        with pytest.raises(InternalError, match="2 workers died while they had this image alone"):
            await pool.upscale(twice, request())
    assert (tmp_path / "m").read_text() == "xx"


async def test_a_poisonous_image_kills_three_workers_at_most(tmp_path: Path) -> None:
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        neighbour = asyncio.create_task(pool.upscale(order("answer", after_s=0.5), request()))
        poison = order("die", after_s=0.1, marker=str(tmp_path / "m"), times=99)
        with pytest.raises(InternalError, match="2 workers died while they had this image alone"):
            await pool.upscale(poison, request("poison"))
        assert isinstance(await neighbour, Result)
    assert (tmp_path / "m").read_text() == "xxx"


async def test_a_retried_job_goes_before_those_that_waited_behind_it(tmp_path: Path) -> None:
    finished: list[str] = []

    async def upscale(pool: LocalPool, name: str, source: bytes) -> None:
        await pool.upscale(source, request(name))
        finished.append(name)

    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        await asyncio.gather(
            upscale(pool, "first", order("die", marker=str(tmp_path / "m"))),
            upscale(pool, "second", order("answer")),
            upscale(pool, "third", order("answer")),
        )
    assert finished == ["first", "second", "third"]


async def test_a_stopped_worker_is_replaced_and_its_job_tried_again(tmp_path: Path) -> None:
    limits = Limits(work_s=20, silence_s=2, backoff_s=0.02)
    async with running_pool(limits=limits) as pool:
        [first] = workers_of(pool)
        started = time.monotonic()
        await pool.upscale(order("hang", marker=str(tmp_path / "m")), request())
        assert 1.5 < time.monotonic() - started < 8
        assert not psutil.pid_exists(first.pid)


async def test_a_stopped_worker_is_replaced_at_the_deadline_if_that_comes_first(
    tmp_path: Path,
) -> None:
    limits = Limits(work_s=3, silence_s=60, backoff_s=0.02)
    async with running_pool(limits=limits) as pool:
        await pool.upscale(order("hang", marker=str(tmp_path / "m")), request())


async def test_an_idle_worker_that_stops_is_replaced() -> None:
    async with running_pool(limits=Limits(work_s=20, silence_s=2, backoff_s=0.02)) as pool:
        [first] = workers_of(pool)
        first.suspend()
        await until(lambda: pool.worker_pids() not in ((), (first.pid,)))
        assert not psutil.pid_exists(first.pid)
        await pool.upscale(order("answer"), request())


async def test_a_job_slower_than_its_deadline_fails_once_and_the_worker_is_replaced() -> None:
    async with running_pool(limits=Limits(work_s=1, backoff_s=0.02)) as pool:
        started = time.monotonic()
        with pytest.raises(InternalError, match="worked on one image for 1 s"):
            await pool.upscale(order("answer", after_s=30), request())
        assert time.monotonic() - started < 15
        await pool.upscale(order("answer"), request())


async def test_a_job_just_within_its_deadline_is_answered() -> None:
    async with running_pool(limits=Limits(work_s=5)) as pool:
        await pool.upscale(order("answer", after_s=1.5), request())


async def test_nonsense_from_a_worker_costs_it_its_life_and_the_pool_goes_on() -> None:
    async with running_pool() as pool:
        with pytest.raises(InternalError):
            await pool.upscale(order("nonsense"), request())
        await pool.upscale(order("answer"), request())


async def test_two_workers_share_the_load() -> None:
    async with running_pool(workers=2) as pool:
        await until(lambda: len(workers_of(pool)) == 2)
        answers = await asyncio.gather(
            *(pool.upscale(order("answer", after_s=0.5), request()) for _ in range(4))
        )
    assert sorted(Counter(answer.model for answer in answers).values()) == [2, 2]


async def test_the_order_is_first_come_first_served() -> None:
    finished: list[int] = []

    async def upscale(pool: LocalPool, number: int) -> None:
        await pool.upscale(order("answer"), request(str(number)))
        finished.append(number)

    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        await asyncio.gather(*(upscale(pool, number) for number in range(20)))
    assert finished == list(range(20))


async def test_the_queue_takes_its_number_and_refuses_one_more_at_once() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=3) as pool:
        admitted = [
            asyncio.create_task(pool.upscale(order("answer", after_s=0.3), request(str(number))))
            for number in range(1 + 3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(order("answer"), request("one more"))
        assert caught.value.reason == "queue"
        assert not any(task.done() for task in admitted)
        await asyncio.gather(*admitted)
        await pool.upscale(order("answer"), request("one more"))


async def test_without_a_queue_only_a_free_worker_takes_work() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=0) as pool:
        assert pool.is_ready()
        busy = asyncio.create_task(pool.upscale(order("answer", after_s=0.3), request()))
        await asyncio.sleep(0)
        assert not pool.is_ready()
        with pytest.raises(RateLimitExceeded):
            await pool.upscale(order("answer"), request())
        await busy


async def test_after_the_promised_wait_the_same_request_passes() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=2) as pool:
        slow = order("answer", after_s=1)  # what the warm-up said of an image of this size
        admitted = [asyncio.create_task(pool.upscale(slow, request())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(slow, request())
        assert 3 <= caught.value.retry_after_s <= 4
        await asyncio.sleep(caught.value.retry_after_s)
        await pool.upscale(order("answer"), request())
        await asyncio.gather(*admitted)


async def test_giving_up_while_waiting_frees_the_place_at_once() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=1) as pool:
        running = asyncio.create_task(pool.upscale(order("answer", after_s=0.5), request()))
        waiting = asyncio.create_task(pool.upscale(order("die"), request("given up")))
        await asyncio.sleep(0.05)
        assert pool.stats().waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.stats().waiting == 0
        [worker] = workers_of(pool)
        await pool.upscale(order("answer"), request())
        await running
        assert workers_of(pool) == [worker]  # so the job that was given up never ran


async def test_giving_up_stops_the_work_at_the_next_tile(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        tiles = order("tiles", count=500, tile_s=0.1, trace=str(trace))
        running = asyncio.create_task(pool.upscale(tiles, request()))
        await until(lambda: trace.exists() and trace.read_text().count("\n") >= 3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        done = trace.read_text().count("\n")
        await pool.upscale(order("answer"), request())
        assert trace.read_text().count("\n") <= done + 2
        assert workers_of(pool) == [worker]


async def test_a_source_given_up_half_way_through_leaves_the_wire_whole() -> None:
    source = order("echo") + os.urandom(20_000_000)
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        for wait_s in (0, 0.001, 0.002, 0.005):
            upscaling = asyncio.create_task(pool.upscale(source, request()))
            await asyncio.sleep(wait_s)
            upscaling.cancel()
        assert (await pool.upscale(source, request())).data == source
        assert workers_of(pool) == [worker]


async def test_every_admitted_job_is_settled_while_workers_are_killed(tmp_path: Path) -> None:
    async with running_pool(workers=2, jobs_per_worker=1, max_queue=1000) as pool:
        jobs = []
        for number in range(60):
            match number % 4:
                case 0:
                    source = order("answer", after_s=0.01)
                case 1:
                    source = order("die", marker=str(tmp_path / str(number)))
                case 2:
                    source = order("refuse")
                case _:
                    source = order("answer", after_s=0.01, size_bytes=300_000)
            jobs.append(asyncio.create_task(pool.upscale(source, request(str(number)))))
        for job in jobs[3::20]:
            await asyncio.sleep(0.02)
            job.cancel()
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        kinds = Counter(type(outcome).__name__ for outcome in outcomes)
        assert set(kinds) <= {"Result", "MalformedImage", "CancelledError"}
        assert kinds["MalformedImage"] == 15
        assert kinds["Result"] >= 15 + 15 + 12
        assert pool._admitted == 0
        assert not pool._in_flight


async def test_no_worker_outlives_stop_and_nothing_is_left_waiting() -> None:
    async with running_pool(workers=2) as pool:
        await until(lambda: len(workers_of(pool)) == 2)
        workers = workers_of(pool)
        jobs = [
            asyncio.create_task(pool.upscale(order("answer", after_s=60), request()))
            for _ in range(4)
        ]
        await asyncio.sleep(0.1)
        await pool.stop(0)
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(outcome, InternalError) for outcome in outcomes)
        assert not any(worker.is_running() for worker in workers)


async def test_stop_finishes_what_was_admitted_and_takes_nothing_new() -> None:
    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        jobs = [
            asyncio.create_task(pool.upscale(order("answer", after_s=0.3), request()))
            for _ in range(3)
        ]
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(pool.stop(20))
        await asyncio.sleep(0)
        assert not pool.is_ready()
        with pytest.raises(RateLimitExceeded):
            await pool.upscale(order("answer"), request())
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*jobs))
        await stopping


async def test_stop_does_not_wait_for_work_that_nobody_wants_any_more(tmp_path: Path) -> None:
    async with running_pool(workers=1) as pool:
        slow = order("tiles", count=1, tile_s=1, trace=str(tmp_path / "t"))
        job = asyncio.create_task(pool.upscale(slow, request()))
        await asyncio.sleep(0.1)
        job.cancel()
        started = time.monotonic()
        await pool.stop(30)
        assert time.monotonic() - started < 5


async def test_stop_ends_a_worker_that_does_not_listen() -> None:
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        worker.suspend()
        started = time.monotonic()
        await pool.stop(0)
        assert time.monotonic() - started < QUICK.end_s + 2
        assert not worker.is_running()


async def test_a_pool_can_be_stopped_before_it_is_ready_and_before_it_is_started() -> None:
    before = psutil.Process().children()  # servers that other tests share
    pool = LocalPool(load_settings({}), command=fake_command("mute"), limits=QUICK)
    await pool.stop(0)
    pool = LocalPool(load_settings({}), command=fake_command("mute"), limits=QUICK)
    await pool.start()
    await asyncio.sleep(0.05)
    await pool.stop(0)
    assert psutil.Process().children() == before


async def test_a_worker_that_says_why_it_cannot_work_leaves_the_pool_unready_and_refusing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_pool(command=fake_command("unusable"), is_waiting=False) as pool:
        early = asyncio.create_task(pool.upscale(order("answer"), request()))
        with pytest.raises(InternalError, match="the model is on holiday"):
            await early
        assert not pool.is_ready()
        with pytest.raises(InternalError, match="the model is on holiday"):
            await pool.upscale(order("answer"), request())
    assert "the model is on holiday" in caplog.text


@pytest.mark.parametrize("command", [fake_command("unusable"), ("/nowhere/python",)])
async def test_waiting_for_workers_that_all_say_they_cannot_work_ends_with_the_reason(
    command: tuple[str, ...],
) -> None:
    async with running_pool(command=command, is_waiting=False, workers=2) as pool:
        async with asyncio.timeout(20):
            with pytest.raises(ChildUnusable, match=r"on holiday|cannot start /nowhere/python"):
                await pool.wait_ready()


async def test_a_worker_that_becomes_unusable_later_leaves_the_first_facts_standing() -> None:
    async with running_pool() as pool:
        pool._supervisors[0]._command = fake_command("unusable")
        [worker] = workers_of(pool)
        worker.kill()
        await until(lambda: pool._supervisors[0].is_unusable)
        assert (await pool.wait_ready()).device == "fake"
        with pytest.raises(InternalError, match="the model is on holiday"):
            await pool.upscale(order("answer"), request())


@pytest.mark.parametrize(
    ("command", "answer"),
    [(fake_command("die"), RateLimitExceeded), (("/nowhere/python",), InternalError)],
)
async def test_workers_that_never_start_settle_whoever_waits(
    command: tuple[str, ...], answer: type[ServiceError]
) -> None:
    async with running_pool(command=command, is_waiting=False) as pool:
        with pytest.raises(answer):
            await pool.upscale(order("answer"), request())
        assert not pool.is_ready()


async def test_a_worker_that_is_never_ready_is_given_up() -> None:
    limits = Limits(work_s=20, start_s=0.5, end_s=0.1, backoff_s=0.01)
    async with running_pool(command=fake_command("mute"), limits=limits, is_waiting=False) as pool:
        with pytest.raises(RateLimitExceeded, match=r"not ready within 0\.5 s"):
            await pool.upscale(order("answer"), request())


async def test_the_pool_recovers_unaided_once_workers_can_start(tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text("raise SystemExit(1)")
    command = (sys.executable, str(program), "ready")
    async with running_pool(command=command, is_waiting=False) as pool:
        with pytest.raises(RateLimitExceeded):
            await pool.upscale(order("answer"), request())
        program.write_text(
            f"import runpy; runpy.run_path({fake_command()[1]!r}, run_name='__main__')"
        )
        await pool.wait_ready()
        assert pool.is_ready()
        await pool.upscale(order("answer"), request())


async def test_a_request_that_comes_before_the_first_worker_waits_for_it() -> None:
    async with running_pool(is_waiting=False) as pool:
        assert not pool.is_ready()
        await pool.upscale(order("answer"), request())


async def test_while_its_only_worker_is_replaced_the_pool_is_not_ready_but_takes_work() -> None:
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        worker.kill()
        await until(lambda: not pool.is_ready())
        await pool.upscale(order("answer"), request())
        assert pool.is_ready()


async def test_draining_is_not_ready_and_still_takes_work() -> None:
    async with running_pool() as pool:
        pool.drain()
        assert not pool.is_ready()
        await pool.upscale(order("answer"), request())


async def test_the_times_tell_how_long_it_waited() -> None:
    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        first = asyncio.create_task(pool.upscale(order("answer", after_s=0.4), request()))
        await asyncio.sleep(0)
        second = await pool.upscale(order("answer"), request())
        assert (await first).timings.queue_s < 0.1
        assert 0.35 < second.timings.queue_s < 1


async def test_one_worker_has_several_images_under_way() -> None:
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        started = time.monotonic()
        answers = await asyncio.gather(
            *(pool.upscale(order("answer", after_s=0.5), request()) for _ in range(4))
        )
        assert time.monotonic() - started < 1.5
    assert len({answer.model for answer in answers}) == 1


async def test_a_small_image_is_not_held_up_by_large_ones_under_way_or_waiting() -> None:
    large = request(width_px=1500, height_px=1500)
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        slow = [
            asyncio.create_task(pool.upscale(order("answer", after_s=60), large)) for _ in range(5)
        ]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            for _ in range(10):
                await pool.upscale(order("answer"), request(width_px=64, height_px=64))
        assert not any(task.done() for task in slow)
        await pool.stop(0)
        await asyncio.gather(*slow, return_exceptions=True)


async def test_a_poisonous_image_takes_none_of_its_neighbours_along() -> None:
    """Twenty innocent images, one that kills every worker, and a kill from outside."""
    async with running_pool(workers=1, jobs_per_worker=4, max_queue=100) as pool:
        innocent = order("answer", after_s=0.05)
        jobs = [
            asyncio.create_task(pool.upscale(innocent, request(f"innocent {number}")))
            for number in range(20)
        ]
        poison = asyncio.create_task(pool.upscale(order("die", after_s=0.02), request("poison")))
        await until(lambda: sum(job.done() for job in jobs) >= 6)
        for pid in pool.worker_pids():
            os.kill(pid, signal.SIGKILL)
        jobs += [
            asyncio.create_task(pool.upscale(innocent, request(f"late {number}")))
            for number in range(4)
        ]
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*jobs))
        with pytest.raises(InternalError, match="2 workers died"):
            await poison


async def test_images_that_lost_their_worker_are_tried_again_one_at_a_time(tmp_path: Path) -> None:
    """All but the poisonous one write into the same file while they are at work."""
    trace = tmp_path / "trace"
    tiles = order("tiles", count=4, tile_s=0.05, trace=str(trace))
    async with running_pool(workers=2, jobs_per_worker=4) as pool:
        await until(lambda: len(pool.worker_pids()) == 2)
        jobs = [asyncio.create_task(pool.upscale(tiles, request(str(at)))) for at in range(6)]
        await until(trace.exists)
        for pid in pool.worker_pids():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not pool.worker_pids())
        trace.write_text("")
        await asyncio.gather(*jobs)
    steps = [int(line) for line in trace.read_text().split()]
    assert len(steps) == 6 * 4
    first, last = min(steps), max(steps)
    under_way = accumulate((step == first) - (step == last) for step in steps)
    assert max(under_way) <= 2  # one in each worker


async def test_the_deadline_of_one_image_costs_its_neighbours_nothing_but_time() -> None:
    async with running_pool(jobs_per_worker=4, limits=Limits(work_s=1, backoff_s=0.02)) as pool:
        late = asyncio.create_task(pool.upscale(order("answer", after_s=30), request("late")))
        await asyncio.sleep(0.5)
        others = [
            asyncio.create_task(pool.upscale(order("answer", after_s=0.8), request(str(at))))
            for at in range(2)
        ]
        with pytest.raises(InternalError, match="worked on one image for 1 s"):
            await late
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*others))


async def test_a_death_by_anothers_deadline_counts_for_nobody(tmp_path: Path) -> None:
    """The one that was late is gone by the time its neighbour hears of the death."""
    async with running_pool(jobs_per_worker=4, limits=Limits(work_s=1, backoff_s=0.02)) as pool:
        late = asyncio.create_task(pool.upscale(order("answer", after_s=30), request("late")))
        await asyncio.sleep(0.5)
        unlucky = order("tiles", count=8, tile_s=0.1, trace=str(tmp_path / "trace"))
        neighbour = asyncio.create_task(pool.upscale(unlucky, request("unlucky")))
        with pytest.raises(InternalError, match="worked on one image for 1 s"):
            await late
        (tmp_path / "trace").write_text("")
        await until(lambda: bool((tmp_path / "trace").read_text()))
        for pid in pool.worker_pids():
            os.kill(pid, signal.SIGKILL)  # alone, for the first time
        assert isinstance(await neighbour, Result)


async def test_giving_one_image_up_leaves_its_neighbours_at_work(tmp_path: Path) -> None:
    traces = [tmp_path / str(number) for number in range(3)]
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        [worker] = workers_of(pool)
        jobs = [
            asyncio.create_task(
                pool.upscale(order("tiles", count=8, tile_s=0.1, trace=str(trace)), request())
            )
            for trace in traces
        ]
        await until(lambda: all(trace.exists() for trace in traces))
        jobs[1].cancel()
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(outcome).__name__ for outcome in outcomes] == [
            *("Result", "CancelledError", "Result")
        ]
        assert workers_of(pool) == [worker]
    assert [trace.read_text().count("\n") for trace in traces[::2]] == [8, 8]
    assert traces[1].read_text().count("\n") < 6


async def test_each_image_hears_of_its_own_tiles(tmp_path: Path) -> None:
    heard: dict[str, list[tuple[int, int]]] = {"3": [], "5": []}

    def listening(name: str) -> UpscaleRequest:
        return replace(request(name), on_tile=lambda *step: heard[name].append(step))

    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        await asyncio.gather(
            *(
                pool.upscale(
                    order("tiles", count=int(name), tile_s=0.02, trace=str(tmp_path / name)),
                    listening(name),
                )
                for name in heard
            )
        )
    for name, steps in heard.items():
        assert steps == [(done, int(name)) for done in range(1, int(name) + 1)]


async def test_the_promised_wait_counts_what_is_under_way_by_what_is_left_of_it(
    tmp_path: Path,
) -> None:
    async with running_pool(workers=1, jobs_per_worker=2, max_queue=1) as pool:
        tiles = order("tiles", count=10, tile_s=0.2, trace=str(tmp_path / "trace"))
        admitted = [
            asyncio.create_task(pool.upscale(tiles, request(width_px=200, height_px=200)))
            for _ in range(3)  # two under way and one that waits: 4 s each, says the warm-up
        ]
        waits_s = []
        for _ in range(2):
            await asyncio.sleep(0.05)
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(tiles, request())
            waits_s.append(caught.value.retry_after_s)
            await asyncio.sleep(1)
        assert waits_s[0] == 12
        assert 6 <= waits_s[1] <= 9  # half of two is done
        for task in admitted:
            task.cancel()
        await asyncio.gather(*admitted, return_exceptions=True)


@pytest.mark.parametrize(
    ("waiting", "wait_s"),
    [
        # Seconds by model, before a picture of either was finished: 1 and 100 for 100x100 px.
        (["", "", ""], 1 + 3),
        (["", "slow", ""], 1 + 1 + 100 + 1),
        (["slow", "slow", "slow"], 1 + 300),
    ],
)
async def test_the_promised_wait_counts_each_picture_by_its_model(
    waiting: list[str], wait_s: int
) -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=3) as pool:
        slow = order("answer", after_s=60)
        admitted = [asyncio.create_task(pool.upscale(slow, request()))]
        await asyncio.sleep(0.05)
        for model in waiting:
            asked = replace(request(), model=model)
            admitted.append(asyncio.create_task(pool.upscale(slow, asked)))
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(slow, request())
        assert caught.value.retry_after_s == wait_s
        for task in admitted:
            task.cancel()
        await asyncio.gather(*admitted, return_exceptions=True)


async def test_a_mixed_queue_of_auto_is_counted_by_where_each_picture_will_go() -> None:
    """Up to 900 px the ladder takes a model that is 100 times as slow for a pixel."""
    command = fake_command("ladder")
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=2, command=command) as pool:
        slow = order("answer", after_s=60)
        sizes = [(100, 100), (30, 30), (30, 31)]  # 1 s, 9 s, 0.093 s
        admitted = []
        for width_px, height_px in sizes:
            asked = request(width_px=width_px, height_px=height_px)
            admitted.append(asyncio.create_task(pool.upscale(slow, asked)))
            await asyncio.sleep(0.02)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(slow, request())
        assert caught.value.retry_after_s == 11
        assert pool.expected_s(request(width_px=30, height_px=30)) == pytest.approx(9)
        for task in admitted:
            task.cancel()
        await asyncio.gather(*admitted, return_exceptions=True)


async def test_after_the_promised_wait_of_a_mixed_queue_the_same_request_passes() -> None:
    """The slow model takes 0.9 s for a picture, as its worker said; the fast one 0.09 s."""
    command = fake_command("ladder")
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=2, command=command) as pool:
        small, large = request(width_px=9, height_px=10), request(width_px=30, height_px=31)
        admitted = [
            asyncio.create_task(pool.upscale(order("answer", after_s=after_s), asked))
            for asked, after_s in ((small, 0.9), (large, 0.09), (small, 0.9))
        ]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitExceeded) as caught:
            await pool.upscale(order("answer"), small)
        assert caught.value.retry_after_s == 2
        await asyncio.sleep(caught.value.retry_after_s)
        await pool.upscale(order("answer"), small)
        await asyncio.gather(*admitted)


async def test_what_a_model_took_corrects_its_estimate_and_no_other() -> None:
    async with running_pool(command=fake_command("ladder")) as pool:
        named = replace(request(), model="slow")
        before_s = pool.expected_s(request())
        await pool.upscale(order("answer", after_s=0.05), named)
        assert 0.05 <= pool.expected_s(named) < 1
        assert pool.expected_s(request()) == before_s
        assert 5e-6 <= pool.stats().seconds_per_px[("slow", 4)] < 1e-4
        assert pool.stats().seconds_per_px[("fake", 4)] == 1e-4
        assert pool.stats().ladders[4][0].model == "slow"


async def test_what_a_worker_says_of_a_result_goes_with_it() -> None:
    async with running_pool() as pool:
        tempered = await pool.upscale(
            order("answer", tempered_with="faithful", label="fake int8"), request()
        )
        plain = await pool.upscale(order("answer"), request())
    assert (tempered.tempered_with, tempered.label) == ("faithful", "fake int8")
    assert (plain.tempered_with, plain.label) == ("", "fake")


async def test_a_model_that_is_named_goes_with_the_job() -> None:
    async with running_pool() as pool:
        upscaled = await pool.upscale(order("answer"), replace(request(), model="slow"))
    assert upscaled.model == "slow"


async def test_one_keys_flood_refuses_no_other_key_and_tells_each_its_own_wait() -> None:
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=4) as pool:
        slow = order("answer", after_s=0.3)

        def send(key_id: int, number: int) -> "asyncio.Task[Result]":
            return asyncio.create_task(
                pool.upscale(slow, request(f"{key_id} {number}", key_id=key_id))
            )

        flood = [send(1, number) for number in range(5)]
        await asyncio.sleep(0)
        assert pool.stats().waiting == 4
        assert pool.is_ready()  # for another key
        with pytest.raises(RateLimitExceeded) as own:
            await pool.upscale(slow, request(key_id=1))
        others = [send(2, number) for number in range(2)]
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*others))
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, RateLimitExceeded)]
        assert [each.reason for each in refused] == ["gave_way", "gave_way"]
        assert all(1 <= each.retry_after_s <= own.value.retry_after_s for each in refused)
        assert outcomes[3:] == refused


async def test_the_key_goes_with_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a worker shares its device between keys, not between images."""
    key_ids = []
    work = WorkerProcess.work

    async def note_and_work(
        worker: WorkerProcess, job: Job, source: bytes, on_tile: OnTile
    ) -> tuple[Answer, bytes]:
        key_ids.append(job.key_id)
        return await work(worker, job, source, on_tile)

    monkeypatch.setattr(WorkerProcess, "work", note_and_work)
    async with running_pool() as pool:
        for key_id in (7, 8):
            await pool.upscale(order("answer"), request(key_id=key_id))
    assert key_ids == [7, 8]


async def test_a_fresh_key_is_answered_before_a_floods_backlog() -> None:
    finished: list[str] = []

    async def upscale(pool: LocalPool, key_id: int) -> None:
        await pool.upscale(order("answer", after_s=0.05), request(key_id=key_id))
        finished.append(str(key_id))

    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        await asyncio.gather(
            *(upscale(pool, 1) for _ in range(8)), *(upscale(pool, 2) for _ in range(3))
        )
    assert "".join(finished) == "12121211111"


async def test_while_starts_fail_requests_are_told_when_to_come_back(tmp_path: Path) -> None:
    """Ready once, then four starts that come to nothing, then well again."""
    limits = Limits(work_s=20, start_s=20, backoff_s=0.2, max_backoff_s=2, steady_s=0)
    program = tmp_path / "worker.py"
    good = f"import runpy; runpy.run_path({fake_command()[1]!r}, run_name='__main__')"
    program.write_text(good)
    command = (sys.executable, str(program), "ready")
    async with running_pool(command=command, limits=limits) as pool:
        await pool.upscale(order("answer"), request())
        program.write_text("raise SystemExit(1)")
        waiting = asyncio.create_task(pool.upscale(order("die"), request()))
        with pytest.raises(RateLimitExceeded) as caught:
            await waiting
        assert caught.value.reason == "starting"
        refusals = []
        while not pool._workers:
            assert not pool.is_ready()
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(order("answer"), request())
            refusals.append(caught.value)
            if len(refusals) == 2:
                program.write_text(good)
            await asyncio.sleep(caught.value.retry_after_s)
        assert {refusal.reason for refusal in refusals} == {"starting"}
        assert len(refusals) <= 3  # so the last Retry-After was enough
        await pool.upscale(order("answer"), request())


async def test_a_machine_without_memory_for_a_process_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_pool() as pool:
        with monkeypatch.context() as full:
            full.setattr(asyncio, "create_subprocess_exec", fail_with(errno.ENOMEM))
            [worker] = workers_of(pool)
            worker.kill()
            await until(lambda: pool.stats().failed_starts >= 3)
            with pytest.raises(RateLimitExceeded, match="Cannot allocate memory"):
                await pool.upscale(order("answer"), request())
            full.setattr(socket, "socketpair", fail_with(errno.EMFILE))
            failed = pool.stats().failed_starts
            await until(lambda: pool.stats().failed_starts >= failed + 2)
        await until(pool.is_ready)
        await pool.upscale(order("answer"), request())


def fail_with(number: int) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_minute_of_random_kills_loses_no_job() -> None:
    import random

    chance = random.Random(1)
    tried: Counter[str] = Counter()

    async def client(pool: LocalPool, until_s: float) -> None:
        while time.monotonic() < until_s:
            try:
                await pool.upscale(order("answer", after_s=0.05, size_bytes=100_000), request())
                tried["answered"] += 1
            except ServiceError as error:
                tried[type(error).__name__] += 1

    async with running_pool(workers=2) as pool:
        until_s = time.monotonic() + 60
        clients = [asyncio.create_task(client(pool, until_s)) for _ in range(6)]
        while time.monotonic() < until_s:
            await asyncio.sleep(chance.uniform(1, 3))
            if pids := pool.worker_pids():
                os.kill(chance.choice(pids), signal.SIGKILL)
                tried["kills"] += 1
        await asyncio.gather(*clients)
    print(dict(tried))
    assert tried["kills"] >= 15
    assert set(tried) == {"answered", "kills"}
