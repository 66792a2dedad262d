"""Workers whose front end is killed end too, idle or in the middle of an image."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.service.pool.pools import fake_command, picture
from upscaled.config import Settings, load_settings
from upscaled.pool.local import WORKER_COMMAND

FRONT_END = """
import asyncio, sys
from upscaled.config import Settings
from upscaled.image.output import OutputSpec
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.local import LocalPool

async def main():
    settings, *command = sys.argv[1:]
    settings = Settings.model_validate_json(settings)
    pool = LocalPool(settings, command=command)
    await pool.start()
    while len(pool._workers) < settings.workers:
        await asyncio.sleep(0.01)
    source = sys.stdin.buffer.read()
    output = OutputSpec("JPEG", 6000, 6000, is_deep=False, canvas_px=6000 * 6000)
    request = UpscaleRequest("r", 4, 1500, 1500, output)
    if source:
        work = asyncio.create_task(pool.upscale(source, request))
        await asyncio.sleep(0.5)
    print(*(worker.pid for worker in pool._workers), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def kill_front_end(settings: Settings, command: Sequence[str], source: bytes) -> list[int]:
    """Kill a front end once its workers are ready; the workers still alive 30 s later."""
    front_end = subprocess.Popen(
        [sys.executable, "-c", FRONT_END, settings.model_dump_json(), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert front_end.stdin is not None
    assert front_end.stdout is not None
    with front_end.stdout as answers:
        with front_end.stdin as sources:
            sources.write(source)
        workers = [psutil.Process(int(pid)) for pid in answers.readline().split()]
        front_end.kill()
        front_end.wait()
    assert len(workers) == settings.workers
    _, alive = psutil.wait_procs(workers, timeout=30)
    return [worker.pid for worker in alive]


def test_idle_workers_end_with_their_front_end(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path, workers=2)
    assert kill_front_end(settings, fake_command(), b"") == []


@pytest.mark.slow
@pytest.mark.parametrize("tile_window_px", [128, pytest.param(0, marks=pytest.mark.slow)])
def test_a_worker_ends_with_its_front_end_even_while_it_computes(
    tmp_path: Path, tile_window_px: int
) -> None:
    settings = load_settings(
        {},
        data_dir=tmp_path,
        model_x2="upscaled-x4-faithful",
        tile_window_px=tile_window_px,
        precision="exact",
    )
    assert kill_front_end(settings, WORKER_COMMAND, picture(1500)) == []
