"""`upscaled backup`, on a real database in a folder of each test's own."""

from pathlib import Path

import pytest
from typer.testing import Result

from tests.service.cli.invoking import invoke


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))


def run(*arguments: str) -> Result:
    return invoke(*arguments)


def test_the_command_names_the_file_and_its_size(tmp_path: Path) -> None:
    run("keys", "create", "web", "--credits", "5")
    done = run("backup", str(tmp_path / "copy.db"))
    size_bytes = (tmp_path / "copy.db").stat().st_size
    assert done.exit_code == 0
    assert f"({size_bytes} bytes, verified) to {tmp_path / 'copy.db'}" in done.stdout


@pytest.mark.parametrize("url", ["", "s3://my-bucket/results"])
def test_the_command_lists_what_the_copy_does_not_contain(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url:
        pytest.importorskip("obstore", reason="obstore is not installed")
    run("keys", "create", "web")
    monkeypatch.setenv("UPSCALED_RESULTS_URL", url)
    said = run("backup", str(tmp_path / "copy.db")).stdout.splitlines()[-1]
    assert said.startswith("Not in it: ")
    assert str(tmp_path / "data" / "models") in said
    assert (url or str(tmp_path / "data" / "results")) in said


def test_a_second_backup_of_the_same_name_is_refused(tmp_path: Path) -> None:
    run("keys", "create", "web")
    assert run("backup", str(tmp_path / "copy.db")).exit_code == 0
    done = run("backup", str(tmp_path / "copy.db"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "exists already" in done.stderr


@pytest.mark.parametrize(
    ("file", "database_url", "reason"),
    [
        ("copy.db", "", "no database yet"),
        ("copy.db", "postgresql://u:p@127.0.0.1/x", "pg_dump"),
    ],
)
def test_a_backup_that_fails_ends_with_status_1_and_the_reason(
    file: str, database_url: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database_url:
        monkeypatch.setenv("UPSCALED_DATABASE_URL", database_url)
    done = run("backup", str(tmp_path / file))
    assert done.exit_code == 1
    assert reason in done.stderr


def test_a_folder_that_is_not_there_ends_with_status_1(tmp_path: Path) -> None:
    run("keys", "create", "web")
    file = tmp_path / "missing" / "copy.db"
    done = run("backup", str(file))
    assert done.exit_code == 1
    assert done.stderr == f"upscaled: cannot back up to {file}: No such file or directory\n"
