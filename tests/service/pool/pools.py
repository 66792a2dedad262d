"""Pools for tests: of fake workers that obey their job, or of real ones."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from PIL import Image

from upscaled.config import Settings, load_settings
from upscaled.image.output import decide_output
from upscaled.image.types import Header
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.local import WORKER_COMMAND, LocalPool
from upscaled.process.supervision import Limits
from upscaled.upscale.result import Result

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
QUICK = Limits(work_s=20, start_s=20, silence_s=10, end_s=2, backoff_s=0.02, max_backoff_s=0.1)


def fake_command(start: str = "ready") -> tuple[str, ...]:
    return (sys.executable, str(FAKE_WORKER), start)


def order(do: str, **what: Any) -> bytes:
    """The source bytes that make a fake worker do something."""
    return json.dumps({"do": do, **what}).encode() + b"\n"


def picture(side_px: int, *, has_alpha: bool = False) -> bytes:
    """A PNG of soft colours for a real worker, the same at every call."""
    chance = np.random.default_rng(7)
    small = chance.integers(0, 255, (8, 8, 4 if has_alpha else 3), np.uint8)
    pixels = cv2.resize(small, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    png = BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()


def request(
    request_id: str = "r",
    *,
    scale: int = 4,
    width_px: int = 100,
    height_px: int = 100,
    key_id: int = 1,
    has_alpha: bool = False,
    is_deep: bool = False,
) -> UpscaleRequest:
    header = Header("PNG", width_px, height_px, has_alpha, is_deep)
    output = decide_output(header, scale, keeps_depth=True, max_side_px=100_000)
    return UpscaleRequest(request_id, scale, width_px, height_px, output, key_id=key_id)


def send(
    pool: LocalPool, source: bytes, work: UpscaleRequest | None = None
) -> "asyncio.Task[Result]":
    """A request that is on its way."""
    return asyncio.create_task(pool.upscale(source, work or request()))


@asynccontextmanager
async def running_pool(
    settings: Settings | None = None,
    *,
    command: Sequence[str] = (),
    limits: Limits = QUICK,
    is_waiting: bool = True,
    **values: object,
) -> AsyncIterator[LocalPool]:
    """A started pool, stopped afterwards without grace; of fake workers, all ready, by default."""
    pool = LocalPool(
        settings or load_settings({}, **values), command=command or fake_command(), limits=limits
    )
    await pool.start()
    try:
        if is_waiting:
            async with asyncio.timeout(100):
                await pool.wait_ready()
            await until(lambda: len(pool._workers) == len(pool._supervisors))
        yield pool
    finally:
        await pool.stop(0)


@asynccontextmanager
async def giving_up(*admitted: "asyncio.Task[Result]") -> AsyncIterator[None]:
    """Let these requests wait for the block, then cancel them."""
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        for task in admitted:
            task.cancel()
        await asyncio.gather(*admitted, return_exceptions=True)


def real_pool(settings: Settings) -> AbstractAsyncContextManager[LocalPool]:
    return running_pool(settings, command=WORKER_COMMAND, limits=Limits(work_s=300))


def pids_of(pool: LocalPool) -> tuple[int, ...]:
    """Return the process ids of the workers that are ready."""
    return tuple(worker.pid for worker in pool._workers)


def workers_of(pool: LocalPool) -> list[psutil.Process]:
    """Return the processes of the workers that are ready."""
    return [psutil.Process(pid) for pid in sorted(pids_of(pool))]


async def until(condition: Any, timeout_s: float = 60) -> None:
    """Wait for a condition that only the outside world makes true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
