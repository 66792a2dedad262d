"""`upscaled config`: every setting in a table, and never a password."""

import re
from pathlib import Path

import pytest
from typer.testing import Result

from tests.running import clean_environment, run_on_terminal
from tests.service.cli.invoking import invoke
from upscaled.config import PREFIX, Settings


def run(**settings: str) -> Result:
    return invoke("config", env=settings)


def test_each_setting_is_a_line_of_four_columns() -> None:
    done = run(UPSCALED_WORKERS="3", UPSCALED_METERING="true")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [PREFIX + name.upper() for name in Settings.model_fields]
    assert all(len(row) == 4 for row in rows)
    assert ["UPSCALED_WORKERS", "3", "1"] in [row[:3] for row in rows]
    assert ["UPSCALED_METERING", "true", "false"] in [row[:3] for row in rows]


@pytest.mark.parametrize(
    ("database_url", "shown"),
    [
        ("postgresql://u:geheim@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?password=geheim", "postgresql://h/d?password=***"),
        ("geheim", "***"),
        ("", ""),
    ],
)
def test_no_password_is_shown(database_url: str, shown: str) -> None:
    done = run(UPSCALED_DATABASE_URL=database_url)
    (row,) = (line for line in done.stdout.splitlines() if "DATABASE_URL" in line)
    assert row.split("\t")[1] == shown
    assert "geheim" not in done.stdout


def test_a_terminal_gets_a_table_with_a_heading(tmp_path: Path) -> None:
    environment = clean_environment(UPSCALED_DATA_DIR=str(tmp_path), COLUMNS="400", TERM="xterm")
    status, text = run_on_terminal(environment, "config")
    assert status == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert re.match(r"VARIABLE +VALUE +DEFAULT +MEANING", text)
    assert str(tmp_path) in text
    assert "worker processes" in text


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert run(UPSCALED_DATA_DIR=str(folder)).exit_code == 0
    assert not folder.exists()
