"""The statistics of a pool of fake workers; tests of `worker.main` have those of a real one."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil

from tests.service.pool.pools import order, request, running_pool, send, until, workers_of
from upscaled.decoder.pool import Decoder
from upscaled.pool.executor import EngineInUse, ModelStats, WorkerStats
from upscaled.pool.messages import Alive, decode_from_worker, encode
from upscaled.process.confinement import measure_resident
from upscaled.upscale.scheduler import BatchDone
from upscaled.worker.jobs import Counters
from upscaled_models.backends.base import Engine

ONE = ModelStats(batches=1, windows=2, slots=4, trunk_px=100, device_s=0.5)


def test_figures_add_up_by_model() -> None:
    first = WorkerStats(models={"a": ONE}, decoder_deaths=1, cpu_s=2, resident_bytes=10)
    second = WorkerStats(models={"a": ONE, "b": ONE}, cpu_s=1, resident_bytes=5)
    both = first + second
    assert both.models == {
        "a": ModelStats(batches=2, windows=4, slots=8, trunk_px=200, device_s=1.0),
        "b": ONE,
    }
    assert (both.decoder_deaths, both.cpu_s, both.resident_bytes) == (1, 3, 15)
    assert first.models == {"a": ONE}


def test_statistics_cross_to_the_front_end_whole() -> None:
    reported = Alive(stats=WorkerStats(models={"a": ONE}, decoder_deaths=3, cpu_s=0.25))
    assert decode_from_worker(encode(reported)) == reported


def test_counters_add_up_and_include_the_process_itself() -> None:
    counters = Counters()
    spec = SimpleNamespace(name="a", trunk_pixels=lambda width_px, height_px: width_px * height_px)
    engine = cast(Engine, SimpleNamespace(info=SimpleNamespace(spec=spec)))
    for _ in range(2):
        counters.count_batch(BatchDone(engine, 2, 4, height_px=10, width_px=5, seconds=0.5))
    counters.decoder = cast(Decoder, SimpleNamespace(deaths=1))
    reported = counters.read()
    assert reported.models == {"a": ONE + ONE}
    assert reported.decoder_deaths == 1
    assert reported.cpu_s > 0
    assert 10_000_000 < reported.resident_bytes <= (measure_resident() or 0) + 100_000_000


async def test_a_quiet_pool_reports_its_slots_and_engines() -> None:
    async with running_pool(workers=2, jobs_per_worker=3, max_queue=5) as pool:
        stats = pool.stats()
    assert (stats.waiting, stats.waiting_most) == (0, 5)
    assert (stats.running, stats.running_most) == (0, 6)
    assert stats.workers_wanted == 2
    assert (stats.restarts, stats.failed_starts) == (0, 0)
    assert stats.engines == {EngineInUse(scale, "fake", "fake", "fake") for scale in (2, 4)}
    assert set(stats.resident_bytes) == {0, 1}


async def test_running_and_waiting_images_are_counted_apart() -> None:
    async with running_pool(jobs_per_worker=1) as pool:
        work = [
            send(pool, order("answer", after_s=0.5), request(str(number))) for number in range(3)
        ]
        await until(lambda: pool.stats().waiting == 2)
        assert pool.stats().running == 1
        upscaled = await asyncio.gather(*work)
        stats = pool.stats()
    assert (stats.waiting, stats.running) == (0, 0)
    assert {each.label for each in upscaled} == {"fake"}


async def test_an_image_is_retried_after_a_restart_which_is_counted_unlike_a_stop(
    tmp_path: Path,
) -> None:
    async with running_pool() as pool:
        [first] = workers_of(pool)
        await pool.upscale(order("die", marker=str(tmp_path / "died")), request())
        assert not psutil.pid_exists(first.pid)
        assert pool.stats().restarts == 1
    assert pool.stats().restarts == 1
    assert pool.stats().workers_ready == 0


async def test_failed_starts_are_counted() -> None:
    async with running_pool(command=("/bin/false",), is_waiting=False) as pool:
        await until(lambda: pool.stats().failed_starts >= 2)
        assert pool.stats().restarts == 0


async def test_the_work_of_a_dead_worker_stays_counted(tmp_path: Path) -> None:
    """The fake ones do nothing that counts, so its statistics are written by hand."""
    async with running_pool() as pool:
        (worker,) = pool._workers
        worker.stats = WorkerStats(models={"fake": ONE}, decoder_deaths=2)
        await pool.upscale(order("die", marker=str(tmp_path / "died")), request())
        done = pool.stats().done
    assert (done.models, done.decoder_deaths) == ({"fake": ONE}, 2)
