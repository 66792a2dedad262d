"""`upscaled usage`: a line for each group, as columns, JSON or CSV, of the time asked for."""

import csv
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import Result

from tests.databases import make_tables
from tests.service.cli.invoking import invoke
from upscaled.cli.console import parse_time
from upscaled.config import load_settings
from upscaled.state import open_state
from upscaled.state.usage import UsageRow
from upscaled.state.usage_days import DAY_S

NOW_S = int(time.time())  # once, or a test may begin on one day and end on the next
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with an image of today and one of ten days ago, and a refusal without a key."""
    make_tables(tmp_path / "data")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    with open_state(load_settings()) as state:
        state.keys.create("web")
        image = {"model": "upscaled-x4", "input_px": 2_500_000, "output_px": 40_000_000}
        rows = [
            UsageRow(NOW_S - days * DAY_S, "upscale", 1, 200, credits=1, device_s=0.25, **image)  # type: ignore[arg-type]
            for days in (0, 10)
        ]
        state.usage.add([*rows, UsageRow(NOW_S, "upscale", None, 401, answers=2)])


def run(*arguments: str) -> Result:
    return invoke("usage", *arguments)


def test_a_line_for_each_day_is_printed_in_columns() -> None:
    head, old, today = run().stdout.splitlines()
    assert head.split()[:4] == ["DAY", "REQUESTS", "IMAGES", "REFUSED"]
    assert old.split() == [day(-10), "1", "1", "0", "0", "0", "1", "2.5", "40", "0.25"]
    assert today.split() == [day(0), "3", "1", "2", "0", "0", "1", "2.5", "40", "0.25"]


def test_what_is_not_requested_is_left_out() -> None:
    assert [line.split()[0] for line in run("--since", "7d").stdout.splitlines()[1:]] == [day(0)]
    old = run("--since", day(-11), "--until", day(-9))
    assert [line.split()[0] for line in old.stdout.splitlines()[1:]] == [day(-10)]


def test_json_has_the_keys_and_null_for_none() -> None:
    rows = json.loads(run("--by", "key", "--json").stdout)
    assert [(row["key"], row["key_id"], row["images"]) for row in rows] == [
        (None, None, 0),
        ("web", 1, 2),
    ]


def test_csv_can_be_grouped_twice() -> None:
    rows = list(csv.DictReader(io.StringIO(run("--by", "model", "--by", "day", "--csv").stdout)))
    assert [(row["day"], row["model"], row["output_mp"]) for row in rows] == [
        (day(-10), "upscaled-x4", "40.0"),
        (day(0), "", "0.0"),
        (day(0), "upscaled-x4", "40.0"),
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("--until", "7w"), "--until: '7w' is no time"),
        (("--by", "hour"), "--by must be one of day, key, model, not hour"),
        (("--json", "--csv"), "choose one"),
    ],
)
def test_what_cannot_be_printed_is_one_line(arguments: tuple[str, ...], text: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2d", datetime(2026, 11, 18, 12, tzinfo=UTC)),
        ("36h", datetime(2026, 11, 19, 0, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:00:00Z", datetime(2026, 11, 1, 8, tzinfo=UTC)),
        ("2026-11-01T08:00:00+02:00", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ],
)
def test_a_time_is_an_age_or_a_date_in_utc(text: str, expected: datetime) -> None:
    assert parse_time(text, "--since", NOON) == expected


def day(days: int) -> str:
    return datetime.fromtimestamp(NOW_S + days * DAY_S, UTC).date().isoformat()
