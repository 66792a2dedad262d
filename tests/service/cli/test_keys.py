"""`upscaled keys`, on a real database in a folder of each test's own."""

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import Result

from tests.databases import make_tables
from tests.running import REPOSITORY_DIR, UPSCALED, clean_environment, run_upscaled
from tests.service.cli.invoking import invoke
from tests.service.state.disks import small_disk
from upscaled.config import load_settings
from upscaled.state import open_state

SECRET = r"upk_[0-9a-f]{16}_[\w-]{43}"


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "service"
    make_tables(folder)
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(folder))
    return folder


def run(*arguments: str) -> Result:
    return invoke(*arguments)


def test_the_new_key_is_alone_on_the_last_line_and_works(data_dir: Path) -> None:
    done = run("keys", "create", "web", "--credits", "7")
    assert done.exit_code == 0
    secret = done.stdout.splitlines()[-1]
    assert re.fullmatch(SECRET, secret)
    with open_state(load_settings()) as state:
        key = state.keys.verify(secret)
        assert key is not None
        assert (key.name, state.credits.balance(key.id)) == ("web", 7)


def test_a_real_process_prints_the_key_for_a_script(data_dir: Path) -> None:
    shutil.rmtree(data_dir)  # the first command of an installation makes folder and tables
    environment = clean_environment(UPSCALED_DATA_DIR=str(data_dir))
    done = run_upscaled(environment, "keys", "create", "web")
    assert re.fullmatch(SECRET, done.stdout.splitlines()[-1])
    assert done.stderr == ""
    assert run("credits", "show", "web").stdout == "0\n", "none by default"


@pytest.mark.parametrize(
    "redirection",
    [">/dev/full", pytest.param(">&-", marks=pytest.mark.slow)],
    ids=["full", "closed"],
)
def test_a_key_that_could_not_be_shown_is_revoked(data_dir: Path, redirection: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *UPSCALED, "keys", "create", "web"],
        cwd=REPOSITORY_DIR,
        env=clean_environment(UPSCALED_DATA_DIR=str(data_dir)),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "upscaled: API key web could not be shown and is revoked\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("keys", "list").stdout.splitlines()[1].split()[:2] == ["web", "revoked"]


def test_the_list_shows_every_key_and_no_secret() -> None:
    secret = run("keys", "create", "web", "--credits", "1234567").stdout.splitlines()[-1]
    run("keys", "create", "x" * 64)
    run("keys", "revoke", "x" * 64)
    head, first, second = run("keys", "list").stdout.splitlines()
    assert head.split() == [
        *("NAME", "STATE", "CREDITS", "CREATED", "KEY", "RATE", "BURST", "EXPIRES", "SCOPES")
    ]
    assert first.split()[:3] == ["web", "active", "1234567"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.split()[3])
    assert first.split()[4] == secret[:21] + "..."
    assert secret not in first
    assert second.split()[:3] == ["x" * 64, "revoked", "0"]


def test_a_key_has_a_rate_of_its_own_that_can_be_changed_and_taken_back() -> None:
    def rates() -> list[list[str]]:
        return [line.split()[5:7] for line in run("keys", "list").stdout.splitlines()[1:]]

    run("keys", "create", "fast", "--rate", "2000000", "--burst", "3")
    assert rates() == []
    run("keys", "create", "fast", "--rate", "0.5", "--burst", "1000000")
    run("keys", "create", "plain")
    run("keys", "create", "half", "--burst", "7")
    assert rates() == [["0.5", "1000000"], ["-", "-"], ["-", "7"]]
    assert run("keys", "rate", "half", "--rate", "20").stdout == (
        "API key half: 20 requests a second, - at once (-: as the settings say).\n"
    )
    run("keys", "rate", "fast")
    assert rates() == [["-", "-"], ["-", "-"], ["20", "-"]]


def test_each_value_of_a_key_is_changed_and_removed() -> None:
    def shown() -> list[str]:
        return run("keys", "list").stdout.splitlines()[1].split()[5:]

    run("keys", "create", "web", "--rate", "2", "--burst", "3", "--scopes", "jobs")
    done = run("keys", "set", "web", "--rate", "0.5", "--expires", "2999-01-31")
    assert done.stdout == "API key web: rate 0.5, expires 2999-01-31.\n"
    assert shown() == ["0.5", "3", "2999-01-31T00:00:00Z", "jobs"]
    run("keys", "set", "web", "--scopes", "Credits,upscale", "--expires", "2999-01-31T12:00:00Z")
    assert shown() == ["0.5", "3", "2999-01-31T12:00:00Z", "upscale,credits"]
    back = ("--rate", "settings", "--burst", "settings", "--expires", "never", "--scopes", "all")
    run("keys", "set", "web", *back)
    assert shown() == ["-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ((), 2, "name what to change"),
        (("--rate", "fast"), 2, "--rate: 'fast' is not a valid value; write a number"),
        (("--burst", "1.5"), 2, "--burst: '1.5' is not a valid value; write a whole number"),
        (("--expires", "tomorrow"), 2, "'tomorrow' is not a valid value; write 2027-01-31 or"),
        (("--expires", "2001-01-31"), 1, "expired already"),
        (("--scopes", "upscale,all"), 1, "'all' is no scope"),
        (("--rate", "nan"), 1, "a rate of nan"),
        (("--rate", "5", "--expires", ""), 2, "--expires: '' is not a valid value"),
        (("--rate", ""), 2, "--rate: '' is not a valid value"),
        (("--burst", ""), 2, "--burst: '' is not a valid value"),
        (("--scopes", ""), 1, "'' is no scope"),
    ],
)
def test_an_impossible_change_is_reported_in_one_line(
    options: tuple[str, ...], code: int, text: str
) -> None:
    run("keys", "create", "web")
    done = run("keys", "set", "web", *options)
    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_rotated_key_works_by_both_secrets_or_by_the_new_one_alone() -> None:
    first = run("keys", "create", "web").stdout.splitlines()[-1]
    second = run("keys", "rotate", "web").stdout.splitlines()[-1]
    with open_state(load_settings()) as state:
        assert None not in map(state.keys.verify, (first, second))
    third = run("keys", "rotate", "web", "--keep", "0").stdout.splitlines()[-1]
    with open_state(load_settings()) as state:
        found = [state.keys.verify(each) for each in (first, second, third)]
    assert [key and key.name for key in found] == [None, None, "web"]


def test_the_list_as_json_shows_ends_and_new_names() -> None:
    run("keys", "create", "web", "--credits", "7", "--rate", "2.5", "--expires", "2999-01-31")
    run("keys", "rename", "web", "shop")
    (key,) = json.loads(run("keys", "list", "--json").stdout)
    assert key["key"].startswith("upk_")
    shown = {name: key[name] for name in key if name not in ("created", "key")}
    assert shown == {
        "name": "shop",
        "state": "active",
        "credits": 7,
        "rate": 2.5,
        "burst": None,
        "expires": "2999-01-31T00:00:00Z",
        "scopes": None,
    }


def test_scopes_are_shown_in_one_order() -> None:
    run("keys", "create", "web", "--scopes", "CREDITS,upscale")
    run("keys", "create", "all")
    limited, whole = json.loads(run("keys", "list", "--json").stdout)
    assert (limited["scopes"], whole["scopes"]) == (["upscale", "credits"], None)
    lines = run("keys", "list").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["SCOPES", "upscale,credits", "-"]


def test_a_revoked_key_is_unknown_and_its_name_free() -> None:
    old = run("keys", "create", "web").stdout.splitlines()[-1]
    assert run("keys", "revoke", "web").exit_code == 0
    assert run("keys", "create", "web").exit_code == 0
    with open_state(load_settings()) as state:
        assert state.keys.verify(old) is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("keys", "create", "web"), "web is already active"),
        (("keys", "create", "a b"), "'a b' is no name"),
        (("keys", "create", "x", "--credits", "1000000001"), "1000000001 credits"),
        (("keys", "rename", "unknown", "x"), "no active API key named unknown"),
        (("keys", "rotate", "unknown"), "no active API key named unknown"),
        (("keys", "create", "x", "--expires", "2020-01-31"), "would have expired already"),
        (("keys", "create", "x", "--scopes", "upscale,admin"), "'admin' is no scope: name one or"),
        (("keys", "create", "x", "--scopes", ""), "'' is no scope"),
        (("keys", "revoke", "unknown"), "no active API key named unknown"),
        (("keys", "rate", "unknown", "--rate", "5"), "no active API key named unknown"),
        (("keys", "rate", "web", "--rate", "0"), "a rate of 0 per second: must be 0.001 to"),
        (("keys", "rate", "web", "--rate", "nan"), "a rate of nan per second"),
        (("keys", "create", "x", "--burst", "0"), "a burst of 0: must be 1 to 1000000"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_an_error_with_status_1(
    arguments: tuple[str, ...], text: str
) -> None:
    run("keys", "create", "web")
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(run("keys", "list").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys",),
        ("keys", "create"),
        ("keys", "create", "web", "--credits", "-1"),
        ("keys", "create", "web", "--credits", "many"),
        ("keys", "create", "web", "more"),
        ("keys", "revoke"),
        ("keys", "rate"),
        ("keys", "rate", "web", "--burst", "1.5"),
        ("keys", "rotate"),
        ("keys", "rotate", "web", "--keep", "-1"),
        ("keys", "create", "web", "--expires", "31.1.2027"),
        ("keys", "create", "web", "--expires", ""),
        ("keys", "rename", "web"),
    ],
)
def test_a_wrong_call_has_status_2_and_changes_nothing(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert len(run("keys", "list").stdout.splitlines()) == 1, "the heads alone"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("create", "web", "--expires", "tomorrow"), "write 2027-01-31 or 2027-01-31T12:00:00Z"),
        (("rotate", "web", "--keep", "2161"), "less than or equal to 2160"),
    ],
)
def test_a_value_out_of_range_is_refused_in_the_words_of_its_option(
    arguments: tuple[str, ...], advice: str
) -> None:
    done = run("keys", *arguments)
    assert done.exit_code == 2
    assert arguments[-2] in done.stderr
    assert advice in " ".join(done.stderr.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())


def test_a_data_folder_that_cannot_be_made_is_named_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    data_dir = tmp_path / "file" / "data"
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(data_dir))
    done = run("keys", "list")
    assert done.exit_code == 1
    assert done.stderr == f"upscaled: cannot use {data_dir}: Not a directory\n"


def test_a_database_of_a_newer_version_fails_with_status_1(data_dir: Path) -> None:
    with open_state(load_settings()) as state, state.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    done = run("keys", "list")
    assert done.exit_code == 1
    assert "newer version" in done.stderr


@contextmanager
def no_byte_written() -> Iterator[None]:
    """Let this process write no byte to a file, as on a full disk; no root is needed."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def assert_one_line(status: int, stderr: str) -> None:
    assert status == 1
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("upscaled: ")


@pytest.mark.parametrize(
    "command",
    [
        "keys create first",
        "keys create other",
        "keys revoke web",
        "keys list",
        "credits add web 5",
        "credits show web",
    ],
)
def test_a_full_disk_is_one_line_and_status_1(
    data_dir: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first command of a new folder too."""
    assert run("keys", "create", "web").exit_code == 0
    if command == "keys create first":
        monkeypatch.setenv("UPSCALED_DATA_DIR", str(data_dir / "new"))
    with no_byte_written():
        done = run(*command.split())
    assert_one_line(done.exit_code, done.stderr)


@pytest.mark.slow
def test_a_real_process_on_a_full_disk_prints_one_line(data_dir: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *UPSCALED, "keys", "create", "web"],
        cwd=REPOSITORY_DIR,
        env=clean_environment(UPSCALED_DATA_DIR=str(data_dir)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert_one_line(done.returncode, done.stderr)


@pytest.mark.parametrize("filled_at", [0, 30_000, 70_000])
def test_a_disk_that_fills_up_on_the_way_is_one_line(
    tmp_path: Path, filled_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    with small_disk(tmp_path / "data", 256 * 1024):
        filler = tmp_path / "data" / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as output:
            while output.write(b"x" * 4096):
                pass
        os.truncate(filler, filler.stat().st_size - filled_at)
        done = run("keys", "create", "web")
    assert_one_line(done.exit_code, done.stderr)
