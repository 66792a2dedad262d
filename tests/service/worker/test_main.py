"""The real worker with the model that ships: pixels, cancellation, deaths, orphans."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
from PIL import Image

from tests.service.pool.pools import (
    picture,
    pids_of,
    real_pool,
    request,
    running_pool,
    until,
    workers_of,
)
from upscaled.config import Settings, load_settings
from upscaled.errors import InternalError, MalformedImage
from upscaled.image.formats.table import read_header
from upscaled.pool.devices import worker_environment
from upscaled.pool.executor import ModelStats, UpscaleRequest
from upscaled.pool.local import WORKER_COMMAND, LocalPool
from upscaled.pool.messages import ALIVE_EVERY_S

MODEL = "upscaled-x4-faithful"

pytestmark = pytest.mark.asyncio(loop_scope="module")  # starting a real worker takes seconds


def square(side_px: int) -> UpscaleRequest:
    return request(width_px=side_px, height_px=side_px)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    # One model for both scales and small tiles: a quick start, and many tiles to stop at.
    return load_settings(
        {},
        data_dir=tmp_path_factory.mktemp("data"),
        model_x2=MODEL,
        model_x4=MODEL,
        tile_window_px=128,
        device="cpu",
        precision="exact",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(settings: Settings) -> AsyncIterator[LocalPool]:
    async with real_pool(settings) as pool:
        yield pool


def open_result(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image


async def test_an_image_is_returned_upscaled_by_the_network(pool: LocalPool) -> None:
    source = picture(96)
    upscaled = await pool.upscale(source, square(96))
    result = open_result(upscaled.data)
    assert (upscaled.media_type, upscaled.model) == ("image/jpeg", MODEL)
    assert result.size == (384, 384) == (upscaled.width_px, upscaled.height_px)
    assert min(upscaled.timings.decode_s, upscaled.timings.network_s, upscaled.timings.encode_s) > 0
    shrunk = np.asarray(result.resize((96, 96), Image.Resampling.BOX), np.float32)
    assert np.abs(shrunk - np.asarray(open_result(source), np.float32)).mean() < 4


async def test_a_worker_reports_how_many_images_it_upscales_at_once(pool: LocalPool) -> None:
    assert pool.stats().running_most == 4


async def test_one_worker_serves_both_scales_and_both_formats(pool: LocalPool) -> None:
    opaque, seen_through = picture(64), picture(64, has_alpha=True)
    seen_through_request = request(scale=4, width_px=64, height_px=64, has_alpha=True)
    jpeg = await pool.upscale(opaque, request(scale=2, width_px=64, height_px=64))
    png = await pool.upscale(seen_through, seen_through_request)
    assert (jpeg.media_type, open_result(jpeg.data).size) == ("image/jpeg", (128, 128))
    assert (png.media_type, open_result(png.data).mode) == ("image/png", "RGBA")


async def test_images_upscaled_at_once_equal_those_upscaled_one_by_one(pool: LocalPool) -> None:
    """Sizes that share batches and sizes that do not, both scales, and some that are cancelled."""
    kinds = [
        (picture(side, has_alpha=side == 70), side, 4 if side == 110 else 2)
        for side in (64, 70, 64, 110)
    ]
    alone = [await upscale_square(pool, *kind) for kind in kinds]
    jobs = [asyncio.create_task(upscale_square(pool, *kind)) for kind in kinds * 2]
    for job in jobs[2::5]:
        job.cancel()
    together = await asyncio.gather(*jobs, return_exceptions=True)
    for number, data in enumerate(together):
        if number % 5 == 2:
            assert isinstance(data, asyncio.CancelledError)
        else:
            assert data == alone[number % len(kinds)]


async def upscale_square(pool: LocalPool, source: bytes, side_px: int, scale: int) -> bytes:
    has_alpha = read_header(source).has_alpha
    work = request(scale=scale, width_px=side_px, height_px=side_px, has_alpha=has_alpha)
    return (await pool.upscale(source, work)).data


async def test_a_broken_image_is_refused_and_the_worker_keeps_running(pool: LocalPool) -> None:
    [worker] = workers_of(pool)
    with pytest.raises(MalformedImage):
        await pool.upscale(picture(96)[:-40], square(96))
    await pool.upscale(picture(64), square(64))
    assert workers_of(pool) == [worker]


async def kill_at_work(pool: LocalPool, worker: psutil.Process, running: int) -> None:
    """Kill a worker that has so many images, or more, and cannot finish them before."""
    await until(lambda: pool.stats().running >= running)
    await asyncio.sleep(0.05)
    worker.suspend()
    await asyncio.sleep(0.2)
    worker.kill()


@pytest.mark.slow
async def test_an_image_whose_worker_is_killed_in_the_middle_is_still_answered(
    pool: LocalPool,
) -> None:
    [worker] = workers_of(pool)
    upscaling = asyncio.create_task(pool.upscale(picture(400), square(400)))
    await kill_at_work(pool, worker, 1)
    assert not upscaling.done()
    upscaled = await upscaling
    assert (upscaled.width_px, upscaled.height_px) == (1600, 1600)
    assert [other.pid for other in workers_of(pool)] != [worker.pid]


@pytest.mark.slow
async def test_many_images_whose_worker_is_killed_in_the_middle_are_all_answered(
    pool: LocalPool,
) -> None:
    [worker] = workers_of(pool)
    upscaling = [asyncio.create_task(pool.upscale(picture(300), square(300))) for _ in range(6)]
    await kill_at_work(pool, worker, 2)
    assert not all(task.done() for task in upscaling)
    answers = await asyncio.gather(*upscaling)
    assert {(answer.width_px, answer.height_px) for answer in answers} == {(1200, 1200)}


@pytest.mark.slow
async def test_an_image_whose_workers_are_killed_twice_fails_and_the_next_does_not(
    pool: LocalPool,
) -> None:
    killed: set[int] = set()
    upscaling = asyncio.create_task(pool.upscale(picture(1500), square(1500)))
    for _ in range(2):
        await until(lambda: set(pids_of(pool)) - killed)
        await asyncio.sleep(0.5)
        [worker] = workers_of(pool)
        killed.add(worker.pid)
        worker.kill()
    with pytest.raises(InternalError, match="2 workers died"):
        await upscaling
    await pool.upscale(picture(64), square(64))


async def test_cancelling_frees_the_real_worker_long_before_it_would_be_done(
    pool: LocalPool,
) -> None:
    [worker] = workers_of(pool)
    started = time.monotonic()
    await pool.upscale(picture(150), square(150))
    short_s = time.monotonic() - started
    for _ in range(3):  # for the machine may pause
        upscaling = asyncio.create_task(pool.upscale(picture(1500), square(1500)))  # 100 times
        await asyncio.sleep(0.3)
        upscaling.cancel()
        started = time.monotonic()
        await pool.upscale(picture(64), square(64))
        behind_s = time.monotonic() - started
        if behind_s < 20 * short_s:
            break
    assert behind_s < 20 * short_s
    assert workers_of(pool) == [worker]


async def test_the_worker_runs_at_lower_priority_than_the_front_end_and_its_network_below_that(
    pool: LocalPool,
) -> None:
    [worker] = workers_of(pool)
    own = psutil.Process().nice()
    assert worker.nice() == own + 1  # and so are its jobs
    threads = [each.id for each in worker.threads()]
    levels = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    assert levels == {own + 1, own + 6}  # what computes in turn is behind those
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "500\n"


async def test_the_worker_inherits_no_more_than_it_needs(pool: LocalPool) -> None:
    [worker] = workers_of(pool)
    assert set(worker.environ()) <= set(worker_environment(load_settings({}), os.environ))


async def test_a_missing_model_is_named(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path, model_x4="realesrgan-x4plus", model_x2=MODEL)
    async with running_pool(settings, command=WORKER_COMMAND, is_waiting=False) as pool:
        with pytest.raises(InternalError, match="upscaled models fetch realesrgan-x4plus"):
            await pool.upscale(picture(64), square(64))
        assert not pool.is_ready()


async def test_the_batches_of_the_device_are_counted_in_the_pools_statistics(
    pool: LocalPool,
) -> None:
    """64 px at a halo of 11 is one window, at 200 px it is four or more; both are counted."""

    def done() -> ModelStats:
        return pool.stats().done.models[MODEL]

    await until(lambda: MODEL in pool.stats().done.models)
    await asyncio.sleep(2.5 * ALIVE_EVERY_S)  # what other tests did has been reported
    before = done()
    upscaled = await pool.upscale(picture(64), square(64))
    await until(lambda: done().windows == before.windows + 1)
    assert done().trunk_px - before.trunk_px == 64 * 64
    assert 0 < done().device_s - before.device_s < 60
    assert upscaled.label == "torch float32"
    before = done()
    await pool.upscale(picture(200), square(200))
    await until(lambda: done().windows >= before.windows + 4)
    assert done().trunk_px - before.trunk_px > 200 * 200
    assert done().slots - before.slots >= done().windows - before.windows
    (resident_bytes,) = pool.stats().resident_bytes.values()
    assert 50_000_000 < resident_bytes < 5_000_000_000
    assert pool.stats().done.cpu_s > 0
