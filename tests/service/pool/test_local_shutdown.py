"""Stopping and draining a pool, with processes that obey their job."""

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from tests.service.pool.pools import (
    QUICK,
    fake_command,
    order,
    request,
    running_pool,
    send,
    workers_of,
)
from upscaled.config import load_settings
from upscaled.errors import InternalError, RateLimitExceeded
from upscaled.pool.local import LocalPool
from upscaled.upscale.result import Result


async def test_no_worker_outlives_stop_and_nothing_is_left_waiting() -> None:
    async with running_pool(workers=2) as pool:
        workers = workers_of(pool)
        jobs = [send(pool, order("answer", after_s=60)) for _ in range(4)]
        await asyncio.sleep(0.1)
        await pool.stop(0)
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(outcome, InternalError) for outcome in outcomes)
        assert not any(worker.is_running() for worker in workers)


async def test_stop_finishes_what_was_admitted_and_refuses_the_rest() -> None:
    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        jobs = [send(pool, order("answer", after_s=0.3)) for _ in range(3)]
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(pool.stop(20))
        await asyncio.sleep(0)
        assert not pool.is_ready()
        with pytest.raises(RateLimitExceeded):
            await pool.upscale(order("answer"), request())
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*jobs))
        await stopping


async def test_stop_does_not_wait_for_work_that_was_cancelled(tmp_path: Path) -> None:
    async with running_pool(workers=1) as pool:
        slow = order("tiles", count=1, tile_s=1, trace=str(tmp_path / "t"))
        job = send(pool, slow)
        await asyncio.sleep(0.1)
        job.cancel()
        started = time.monotonic()
        await pool.stop(30)
        assert time.monotonic() - started < 25


async def test_stop_ends_a_worker_that_does_not_listen() -> None:
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        worker.suspend()
        started = time.monotonic()
        await pool.stop(0)
        assert time.monotonic() - started < QUICK.end_s + 20
        assert not worker.is_running()


async def test_a_pool_can_be_stopped_before_it_is_ready_and_before_it_is_started() -> None:
    before = set(psutil.Process().children())  # servers that other tests share, and may end
    pool = LocalPool(load_settings({}), command=fake_command("mute"), limits=QUICK)
    await pool.stop(0)
    pool = LocalPool(load_settings({}), command=fake_command("mute"), limits=QUICK)
    await pool.start()
    await asyncio.sleep(0.05)
    await pool.stop(0)
    assert set(psutil.Process().children()) <= before


async def test_draining_is_not_ready_and_still_accepts_work() -> None:
    async with running_pool() as pool:
        pool.drain()
        assert not pool.is_ready()
        await pool.upscale(order("answer"), request())
