"""`upscaled admin key`: a setting that a server takes, and the key that it lets in."""

import re
import socket
from pathlib import Path

import pytest
from typer.testing import Result

from tests.running import clean_environment, run_upscaled
from tests.service.cli.invoking import invoke
from upscaled.config import load_settings
from upscaled.state.key_rows import hash_secret


def run(*arguments: str) -> Result:
    return invoke("admin", *arguments)


def test_the_setting_holds_the_hash_of_the_key_on_the_last_line() -> None:
    done = run("key", "Alice@example.com")
    assert done.exit_code == 0
    *_, setting, _, secret = done.stdout.splitlines()
    name, value = setting.split("=")
    assert name == "UPSCALED_ADMIN_KEYS"
    assert re.fullmatch(r"upa_[A-Za-z0-9_-]{43}", secret)
    assert secret not in setting
    settings = load_settings({name: value})
    assert settings.admin_keys == (f"Alice@example.com:{hash_secret(secret)}",)
    assert run("key", "Alice@example.com").stdout.splitlines()[-1] != secret


@pytest.mark.parametrize("name", ["", "a b", "-x", "a:b", "a/b", "x" * 65])
def test_a_name_that_the_audit_log_could_not_show_is_refused(name: str) -> None:
    done = run("key", "--", name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{name!r} is no name for an administrator: 1 to 64 letters" in done.stderr


def test_a_port_that_is_in_use_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = clean_environment(
            UPSCALED_DATA_DIR=str(tmp_path),
            UPSCALED_ADMIN_KEYS=f"ops:{'0' * 64}",
            UPSCALED_ADMIN_PORT=port,
        )
        ended = run_upscaled(environment, "serve", "--port", "0", is_checked=False)
    assert ended.returncode == 1
    assert f"administration cannot listen on 127.0.0.1 port {port}: Address already" in ended.stderr
    assert "(UPSCALED_ADMIN_HOST and UPSCALED_ADMIN_PORT say where)" in ended.stderr
    assert "Traceback" not in ended.stderr
