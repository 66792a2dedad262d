"""The page on usage: its calls of administration do what it says, on a listener of its own."""

import json
import subprocess
from pathlib import Path

import pytest
import requests

from tests.docs.blocks import DOCS, read_blocks
from tests.listening import free_port
from tests.running import run_upscaled, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

(CALLS,) = (
    block.text
    for block in read_blocks(DOCS / "usage.md", "bash")
    if block.why_not.startswith("tests/docs/test_usage.py")
)


def test_the_calls_of_administration_do_what_the_page_describes(tmp_path: Path) -> None:
    printed = run_upscaled({}, "admin", "key", "alice").stdout.splitlines()
    key, (setting,) = printed[-1], [line for line in printed if line.startswith("UPSCALED_")]
    keys = tmp_path / "admin-keys"
    keys.write_text(setting.partition("=")[2] + "\n")
    port = free_port()
    with serve(
        tmp_path / "data", UPSCALED_ADMIN_KEYS_FILE=str(keys), UPSCALED_ADMIN_PORT=str(port)
    ) as server:
        assert any(f"administration on http://127.0.0.1:{port}" in line for line in server.stdout)
        assert requests.get(f"{server.url}/admin/v1/keys", timeout=60).status_code == 404
        calls = CALLS.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        assert calls != CALLS
        done = subprocess.run(
            ["bash", "-eu", "-c", calls.replace("\ncurl", "\necho; curl")],
            env={"PATH": "/usr/bin:/bin", "ADMIN_KEY": key},
            capture_output=True,
            text=True,
            check=True,
        )
        made, added, rotated, listed, used, audited = map(json.loads, done.stdout.split("\n")[1:])
        assert (made["name"], added) == ("agency", {"name": "agency", "credits": 150})
        assert rotated["secret"] != made["secret"]
        assert [each["name"] for each in listed] == ["first", "agency"]
        assert used == []
        assert [each["actor"] for each in audited] == ["upscaled", *["admin:alice"] * 3]
        for secret in (made["secret"], rotated["secret"]):
            answer = requests.get(
                f"{server.url}/v1/credits", headers={"X-API-KEY": secret}, timeout=10
            )
            assert answer.status_code == 200
        assert server.stop() == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/admin/v1/keys", timeout=60)
