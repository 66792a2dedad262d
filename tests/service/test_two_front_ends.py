"""Two real front ends with data folders of their own, started at once on one empty PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.running import Server, serve
from tests.service.pool.pools import picture

KEY = f"upk_{'0123456789abcdef'}_{'A-_z' * 10}xyz"
CREDITS = 10


@pytest.fixture
def pair(empty_server_url: str, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    key_file = tmp_path / "first.key"
    key_file.write_text(KEY)
    start = partial(
        serve,
        is_waiting=False,
        UPSCALED_DATABASE_URL=empty_server_url,
        UPSCALED_FIRST_KEY_FILE=str(key_file),
        UPSCALED_METERING="true",
        UPSCALED_RATE_PER_S="0.001",
        UPSCALED_RATE_BURST="4",
        UPSCALED_MODEL_X2="upscaled-x4",
        UPSCALED_MODEL_X4="upscaled-x4",
        UPSCALED_TILE_WINDOW_PX="128",
    )
    with start(tmp_path / "a") as first, start(tmp_path / "b") as second:
        for each in (first, second):
            each.wait_ready()
        yield first, second


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
