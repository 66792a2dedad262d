"""`upscaled credits`, on a real database in a folder of each test's own."""

from pathlib import Path

import pytest
from typer.testing import Result

from tests.databases import make_tables
from tests.service.cli.invoking import invoke
from upscaled.config import load_settings
from upscaled.state import open_state


@pytest.fixture(autouse=True)
def web_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tables(tmp_path / "data")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    assert run("keys", "create", "web", "--credits", "5").exit_code == 0


def run(*arguments: str) -> Result:
    return invoke(*arguments)


def test_the_balance_is_alone_on_the_last_line() -> None:
    added = run("credits", "add", "web", "37")
    assert (added.exit_code, added.stdout.splitlines()[-1]) == (0, "42")
    assert run("credits", "show", "web").stdout.splitlines()[-1] == "42"


def test_credits_on_hold_are_not_counted() -> None:
    with open_state(load_settings()) as state:
        hold = state.credits.hold(1, "r1")
        assert run("credits", "show", "web").stdout == "4\n"
        state.credits.release(hold)
        assert run("credits", "show", "web").stdout == "5\n"


@pytest.mark.parametrize(
    "command",
    [
        ("show", "unknown"),
        ("add", "unknown", "1"),
        ("take", "unknown", "1"),
        ("transfer", "web", "unknown", "1"),
        ("transfer", "unknown", "web", "1"),
    ],
)
def test_an_unknown_name_is_an_error_with_status_1(command: tuple[str, ...]) -> None:
    done = run("credits", *command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no active API key named unknown" in done.stderr


def test_credits_cannot_be_added_to_a_revoked_key() -> None:
    run("keys", "revoke", "web")
    assert run("credits", "add", "web", "1").exit_code == 1
    assert run("credits", "show", "web").exit_code == 1


def test_credits_are_taken_and_moved_down_to_none() -> None:
    run("keys", "create", "shop")
    assert run("credits", "take", "web", "2").stdout.splitlines()[-1] == "3"
    moved = run("credits", "transfer", "web", "shop", "3").stdout.splitlines()
    assert [line.split() for line in moved[1:]] == [["web", "0"], ["shop", "3"]]


@pytest.mark.parametrize("command", [("take", "web", "6"), ("transfer", "web", "shop", "6")])
def test_more_credits_than_a_key_has_are_neither_taken_nor_moved(command: tuple[str, ...]) -> None:
    run("keys", "create", "shop")
    done = run("credits", *command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "6 credits: the key has 5" in done.stderr
    assert [run("credits", "show", name).stdout for name in ("web", "shop")] == ["5\n", "0\n"]


@pytest.mark.parametrize("amount", ["0", "-1", "1.5", "many", ""])
def test_a_wrong_amount_has_status_2_and_adds_nothing(amount: str) -> None:
    assert run("credits", "add", "web", "--", amount).exit_code == 2
    assert run("credits", "show", "web").stdout == "5\n"


@pytest.mark.parametrize(
    ("amount", "status", "balance"), [("1000000000", 0, "1000000005"), ("1000000001", 1, "5")]
)
def test_a_grant_has_a_largest_size(amount: str, status: int, balance: str) -> None:
    assert run("credits", "add", "web", amount).exit_code == status
    assert run("credits", "show", "web").stdout == f"{balance}\n"
