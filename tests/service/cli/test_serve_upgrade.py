"""A data folder that version 0.1.0 left behind, copied and served by this version."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.running import Server, serve
from tests.service.api.pictures import picture
from tests.service.state.test_migrate import VERSION_1, VERSION_1_SECRET

pytestmark = pytest.mark.slow

RESULT = "00c7a59c-04ca-4d24-9f64-3a1f35e8ad31.png"
HEADERS = {"X-API-KEY": VERSION_1_SECRET}


@pytest.fixture
def version_1_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "left"
    (folder / "results" / "00").mkdir(parents=True, mode=0o700)
    (folder / "results" / "00" / RESULT).write_bytes(picture())
    (folder / "models").mkdir(mode=0o700)
    with closing(sqlite3.connect(folder / "upscaled.sqlite3")) as connection:
        connection.executescript(VERSION_1.read_text())
        connection.execute("UPDATE open_holds SET held_at_s = 1700000000")  # before any test
        connection.commit()
    return folder


def _credits(server: Server) -> int:
    answer = requests.get(f"{server.url}/v1/credits", headers=HEADERS, timeout=60)
    return int(answer.json()["credits_remaining"])


def test_a_copied_data_folder_of_version_1_keeps_keys_credits_and_results(
    version_1_folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "data"
    shutil.copytree(version_1_folder, copied)
    upload: dict[str, Any] = {
        "files": {"image": ("a.png", picture())},
        "data": {"scale": "2"},
    }
    with serve(copied, UPSCALED_METERING="true") as server:
        assert server.key == ""  # the folder has keys: none is made up
        assert requests.get(f"{server.url}/public/result/{RESULT}", timeout=60).content == picture()
        before = _credits(server)
        answer = requests.post(f"{server.url}/v1/upscale", headers=HEADERS, timeout=60, **upload)
        assert answer.status_code == 200, answer.text
        assert requests.get(answer.json()["result_url"], timeout=60).status_code == 200
        # 10 granted, 1 captured by version 1, whose hold of 1 came back at the start.
        assert (before, _credits(server)) == (9, 8)
        assert "web" in server.run("keys", "list")
        assert server.stop() == 0
    with serve(copied, UPSCALED_METERING="true") as again:
        assert _credits(again) == 8
