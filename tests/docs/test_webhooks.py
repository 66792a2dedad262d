"""The programs of the page on webhooks verify what the service signs, and nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.docs.blocks import DOCS, read_blocks
from tests.listening import free_port, wait_listening
from tests.service.api.receiver import Call, receive
from tests.service.cli.invoking import invoke

RECEIVER, BY_HAND = (block.text for block in read_blocks(DOCS / "webhooks.md", "python"))


def run(*arguments: str) -> str:
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    run("keys", "create", "shop")
    return set_address("http://127.0.0.1/")


def set_address(url: str) -> str:
    return run("keys", "webhook", "shop", url).splitlines()[-1]


def received(secret: str) -> Call:
    with receive() as receiver:
        assert set_address(receiver.url) == secret
        run("webhooks", "test", "shop")
        return receiver.calls[0]


def test_the_receiver_accepts_a_genuine_call_once_and_no_other(secret: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/hook"
    (tmp_path / "secret.txt").write_text(secret + "\n")
    (tmp_path / "receiver.py").write_text(RECEIVER.replace("9400", str(port)))
    log = tmp_path / "log"
    call = received(secret)
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "receiver.py"], cwd=tmp_path, stdout=output, stderr=output
        )
        try:
            wait_listening(port, running, log)
            for body, status in ((call.body, 204), (call.body, 204), (call.body + b" ", 401)):
                answer = requests.post(url, data=body, headers=call.headers, timeout=60)
                assert answer.status_code == status
            set_address(url)
            run("webhooks", "test", "shop")
        finally:
            running.kill()
            running.wait()
    assert log.read_text().count("webhook.test None") == 2


def test_the_check_by_hand_agrees(secret: str) -> None:
    program: dict[str, Any] = {}
    exec(BY_HAND, program)
    is_genuine, call = program["is_genuine"], received(secret)
    assert is_genuine(secret, call.headers, call.body)
    assert not is_genuine(secret, call.headers, call.body + b" ")
    assert not is_genuine("whsec_" + "A" * 44, call.headers, call.body)
    for name, value in (("webhook-id", "x"), ("webhook-timestamp", "1700000000")):
        assert not is_genuine(secret, {**call.headers, name: value}, call.body)
