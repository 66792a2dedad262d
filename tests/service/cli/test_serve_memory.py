"""The memory of the whole service, front end and worker together."""

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from tests.running import Server, serve

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
OF_ROOT = pytest.mark.skipif(
    sys.platform == "linux" and os.geteuid() != 0, reason="what is mapped is hidden from its user"
)


@contextmanager
def peak_mib(server: Server) -> Iterator[list[float]]:
    """The largest sum of resident memory seen in the block, looked at every 50 ms."""
    supervisor = psutil.Process(server.process.pid)
    processes = [supervisor, *supervisor.children(recursive=True)]
    peak = [0.0]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            peak[0] = max(peak[0], sum(each.memory_info().rss for each in processes) / MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


def noise(side_px: int) -> bytes:
    """A JPEG that is as large for its size as pictures get."""
    pixels = np.random.default_rng(1).integers(0, 256, (side_px, side_px, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a service that is ready and has had no request yet."""
    with serve(tmp_path_factory.mktemp("idle")) as server:
        server.wait_ready()
        yield server


def test_the_idle_front_end_stays_under_150_mib(idle: Server) -> None:
    assert idle.front_end().memory_info().rss < 150 * MIB


@OF_ROOT
def test_the_idle_front_end_loads_no_numpy(idle: Server) -> None:
    assert "/numpy/" not in Path(f"/proc/{idle.front_end().pid}/maps").read_text()


@OF_ROOT
def test_the_supervisor_takes_under_50_mib_and_shares_most_of_it(idle: Server) -> None:
    memory = psutil.Process(idle.process.pid).memory_full_info()
    assert memory.rss < 50 * MIB
    assert memory.uss < 20 * MIB


@pytest.mark.timeout(600)
def test_the_largest_image_at_4x_stays_under_2_5_gib(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        server.wait_ready()
        with peak_mib(server) as peak:
            answer = requests.post(
                f"{server.url}/v1/upscale",
                headers={"X-API-KEY": server.key, "Accept": "image/*"},
                files={"image": noise(1500)},
                data={"scale": 4},
                timeout=500,
            )
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as result:
        assert result.size == (6000, 6000)
    assert 0 < peak[0] < 2.5 * 1024
