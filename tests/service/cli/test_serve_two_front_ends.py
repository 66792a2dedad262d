"""Two real front ends with data folders of their own, started at once on one empty PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.running import Server, serve
from tests.service.pool.pools import picture

KEY = f"upk_{'0123456789abcdef'}_{'A-_z' * 10}xyz"
CREDITS = 10


Start = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def pair(start: Start, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with start(tmp_path / "a") as first, start(tmp_path / "b") as second:
        for each in (first, second):
            each.wait_ready()
        yield first, second


@pytest.fixture
def start(empty_server_url: str, tmp_path: Path) -> Start:
    key_file = tmp_path / "first.key"
    key_file.write_text(KEY)
    return partial(
        serve,
        is_waiting=False,
        UPSCALED_DATABASE_URL=empty_server_url,
        UPSCALED_FIRST_KEY_FILE=str(key_file),
        UPSCALED_METERING="true",
        UPSCALED_RATE_PER_S="0.001",
        UPSCALED_RATE_BURST="4",
        UPSCALED_MODEL_X2="upscaled-x4-faithful",
        UPSCALED_MODEL_X4="upscaled-x4-faithful",
        UPSCALED_TILE_WINDOW_PX="128",
    )


def upscale(server: Server) -> int:
    answer = requests.post(
        server.url + "/v1/upscale",
        headers={"X-API-KEY": KEY, "Accept": "image/*"},
        files={"image": picture(64)},
        data={"scale": "4"},
        timeout=120,
    )
    return answer.status_code


@pytest.mark.slow
def test_key_credits_and_rate_are_shared(pair: tuple[Server, Server]) -> None:
    first, second = pair
    first.run("credits", "add", "first", str(CREDITS))
    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(upscale, [first, second] * 3))
    assert sorted(statuses) == [200] * 4 + [429] * 2
    assert second.run("credits", "show", "first").split()[0] == str(CREDITS - 4)
    assert first.stop() == second.stop() == 0
    assert "Traceback" not in "".join(first.stderr + second.stderr)


@pytest.mark.slow
def test_a_front_end_with_other_models_is_not_ready_until_the_first_has_stopped(
    start: Start, tmp_path: Path
) -> None:
    with start(tmp_path / "a") as first:
        first.wait_ready()
        with start(tmp_path / "b", UPSCALED_MODEL_X2="upscaled-x2") as second:
            second.wait_said("auto differs at x2: here upscaled-x2")
            assert not second.is_ready()
            assert "x2: upscaled-x4-faithful: any size" in second.run("cluster", "thresholds")
            first.stop()
            second.wait_ready()
            assert "x2: upscaled-x2: any size" in second.run("cluster", "thresholds", "--reset")
            assert "no thresholds are stored" in second.run("cluster", "thresholds")
