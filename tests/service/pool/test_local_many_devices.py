"""One pool over several devices: they share its queue, and fail each by itself."""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.service.pool.pools import (
    QUICK,
    fake_command,
    order,
    picture,
    pids_of,
    real_pool,
    request,
    running_pool,
    send,
    until,
)
from upscaled.config import load_settings
from upscaled.errors import InternalError
from upscaled.pool.local import LocalPool
from upscaled.pool.supervisor import HOPELESS_STARTS
from upscaled.upscale.result import Result
from upscaled_models.processor import count_cores, divide_cores

TWO_GPUS = "cuda:0,cuda:1"  # their workers are fakes: what is proven is the front end's side


async def upscale_on_both(pool: LocalPool, source: bytes) -> None:
    """Upscale an image at each of two idle devices, at once."""
    await asyncio.gather(*(pool.upscale(source, request()) for _ in range(2)))


async def test_all_devices_work_at_images_of_one_queue(tmp_path: Path) -> None:
    may_end = tmp_path / "may end"
    async with running_pool(device=TWO_GPUS, jobs_per_worker=1) as pool:
        jobs = [send(pool, order("answer", until=str(may_end))) for _ in range(4)]
        await until(lambda: pool.stats().running == 2)
        stats = pool.stats()
        assert [(each.device, each.in_flight) for each in stats.workers] == [
            ("cuda:0", 1),
            ("cuda:1", 1),
        ]
        assert (stats.waiting, stats.workers_ready, stats.workers_wanted) == (2, 2, 2)
        may_end.touch()
        assert len({result.model for result in await asyncio.gather(*jobs)}) == 2


async def test_images_that_a_broken_device_fails_are_made_by_the_other_until_it_is_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = order("die", at="cuda:0")  # which kills its worker whenever it has an image
    async with running_pool(device=TWO_GPUS, jobs_per_worker=1) as pool:
        async with asyncio.timeout(60):
            while not pool.stats().workers[0].is_out:
                results = await asyncio.gather(*(pool.upscale(broken, request()) for _ in range(2)))
                assert all(isinstance(result, Result) for result in results)
        assert "cuda:0 failed repeatedly: worker 0 is not used" in caplog.text
        assert pool.is_ready()
        await pool.upscale(broken, request())
        assert pool.stats().workers[0].is_out
        [last] = [psutil.Process(pid) for pid in pids_of(pool)]
        last.kill()  # no other device is left
        await until(lambda: pool.stats().workers[0].is_ready)


async def test_a_device_that_answers_but_fails_every_image_is_out_after_three_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = order("fail", at="cuda:0")
    async with running_pool(device=TWO_GPUS, jobs_per_worker=1) as pool:
        for number in range(3):
            assert not pool.stats().workers[0].is_out
            assert pool.stats().faults == number
            await upscale_on_both(pool, broken)
        await until(lambda: pool.stats().workers[0].is_out)
        assert "failed 3 images in a row that another device made" in caplog.text
        assert "cuda:0 failed repeatedly: worker 0 is not used" in caplog.text
        assert isinstance(await pool.upscale(broken, request()), Result)
        assert pool.stats().faults == 3
        [last] = [psutil.Process(pid) for pid in pids_of(pool)]
        last.kill()  # no other device is left
        await until(lambda: pool.stats().workers[0].is_ready)


async def test_an_image_that_every_device_fails_is_tried_on_two_and_blames_none() -> None:
    async with running_pool(device="cuda:0,cuda:1,cuda:2", jobs_per_worker=1) as pool:
        workers = pids_of(pool)
        for _ in range(4):
            with pytest.raises(InternalError, match="ZeroDivisionError"):
                await pool.upscale(order("fail"), request())
        assert pids_of(pool) == workers
        assert pool.stats().faults == 0
        assert sum(worker.answered for worker in pool._workers) == 8


async def test_an_image_that_a_device_makes_between_those_it_fails_keeps_it_in_use() -> None:
    async with running_pool(device=TWO_GPUS, jobs_per_worker=1) as pool:
        workers = pids_of(pool)
        failing = [order("fail", at="cuda:0")] * 2
        for source in (*failing, order("answer"), *failing):
            await upscale_on_both(pool, source)
        assert pids_of(pool) == workers
        assert pool.stats().faults == 4


@pytest.mark.slow
async def test_a_worker_is_used_again_where_only_others_of_its_own_device_are_left() -> None:
    async with running_pool(device=TWO_GPUS, workers=2) as pool:
        for number in range(1, HOPELESS_STARTS + 1):
            await until(lambda: pool.stats().workers[0].is_ready)
            psutil.Process(pool._supervisors[0].worker.pid).kill()  # type: ignore[union-attr]
            await until(lambda number=number: pool.stats().restarts == number)
        await until(lambda: pool.stats().workers[0].is_out)
        for supervisor in pool._supervisors[2:]:
            psutil.Process(supervisor.worker.pid).kill()  # type: ignore[union-attr]
        await until(lambda: pool.stats().workers[0].is_ready)


async def test_a_device_that_cannot_start_stops_no_other() -> None:
    command = fake_command("without cuda:1")
    limits = QUICK
    async with running_pool(
        device=TWO_GPUS, command=command, limits=limits, is_waiting=False
    ) as pool:
        await pool.wait_ready()
        await until(lambda: pool.stats().workers[1].is_out)
        assert isinstance(await pool.upscale(order("answer"), request()), Result)
        assert pool.is_ready()
        assert (pool.stats().workers_ready, pool.stats().workers_wanted) == (1, 2)


async def test_figures_keep_the_name_of_a_device_whose_worker_died() -> None:
    limits = replace(QUICK, backoff_s=5, max_backoff_s=5)
    async with running_pool(limits=limits) as pool:
        assert [each.device for each in pool.stats().workers] == ["fake"]
        psutil.Process(*pids_of(pool)).kill()
        await until(lambda: not pool.stats().workers[0].is_ready)
        assert [each.device for each in pool.stats().workers] == ["fake"]


@pytest.mark.slow  # two real workers
@pytest.mark.skipif(count_cores() < 2, reason="one core has no halves")
async def test_workers_of_parts_of_a_processor_keep_to_their_cores(tmp_path: Path) -> None:
    one, other = [sorted(cores) for cores in divide_cores(2)]
    device = ",".join("cpu:" + ",".join(map(str, cores)) for cores in (one, other))
    settings = load_settings({}, data_dir=tmp_path, device=device, precision="exact")
    async with real_pool(settings) as pool:
        source, what = picture(64), request(width_px=64, height_px=64)
        results = await asyncio.gather(*(pool.upscale(source, what) for _ in range(4)))
        assert len({result.data for result in results}) == 1
        for pid, cores in zip(pids_of(pool), (one, other), strict=True):
            worker = psutil.Process(pid)
            threads = [thread.id for thread in worker.threads()]
            family = [pid, *threads, *(child.pid for child in worker.children())]
            ties = []
            for each in family:
                with suppress(ProcessLookupError):  # a thread of an image may be over
                    ties.append(os.sched_getaffinity(each))
            assert len(ties) > 5
            assert all(tie == set(cores) for tie in ties)
        # Workers report what they have done once a second.
        await until(lambda: all(each.device_s > 0 for each in pool.stats().workers))
