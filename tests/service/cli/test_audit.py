"""`upscaled audit`: each command that changes something leaves its line, with the user's name."""

import json
import os
import pwd
import socket
from pathlib import Path

import pytest
from typer.testing import Result

from tests.databases import make_tables
from tests.service.cli.invoking import invoke
from upscaled.cli.console import describe_user

USER = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tables(tmp_path / "data")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("SUDO_USER", raising=False)


def run(*arguments: str) -> Result:
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done


def entries() -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(run("audit", "--json").stdout)
    return listed


COMMANDS = (
    ("keys", "create", "web", "--credits", "9"),
    ("keys", "create", "shop"),
    ("keys", "rate", "web", "--rate", "3"),
    ("keys", "rotate", "web"),
    ("keys", "webhook", "web", "https://hook.example/"),
    ("credits", "add", "web", "2"),
    ("credits", "take", "web", "1"),
    ("credits", "transfer", "web", "shop", "1"),
    ("keys", "rename", "web", "site"),
    ("keys", "revoke", "site"),
)


def test_every_command_that_changes_something_is_listed_by_its_name_and_user() -> None:
    for command in COMMANDS:
        run(*command)
        run("keys", "list")
    listed = entries()
    assert [each["action"] for each in listed] == [" ".join(each[:2]) for each in COMMANDS]
    assert {each["actor"] for each in listed} == {USER}


def test_columns_show_what_was_given() -> None:
    run("keys", "create", "web", "--credits", "9", "--rate", "2.5")
    head, row = run("audit").stdout.splitlines()
    assert head.split() == ["AT", "ACTOR", "ACTION", "SUBJECT", "KEY", "ID", "DETAILS"]
    assert row.split()[1:] == [USER, "keys", "create", "web", "1", "credits=9", "rate=2.5"]


def test_what_is_older_is_left_out() -> None:
    run("keys", "create", "web")
    assert len(run("audit", "--since", "1h").stdout.splitlines()) == 2
    assert len(run("audit", "--since", "2999-01-01").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("user_id", "environment", "expected"),
    [
        (0, {}, "root"),
        (0, {"SUDO_USER": "alice"}, "root for alice"),
        (4_000_000, {}, "4000000"),
        (4_000_000, {"SUDO_USER": "alice"}, "4000000"),
    ],
)
def test_the_user_is_the_processes_own_and_whom_sudo_serves(
    monkeypatch: pytest.MonkeyPatch, user_id: int, environment: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user_id)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("USER", "mallory")
    assert describe_user() == f"{expected}@{socket.gethostname()}"
