"""The recorder of usage: which answers it notes, what it keeps while the database is down."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.databases import make_tables
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.api.telemetry.usage_recorder import UsageRecorder, build_row, merge_alike
from upscaled.config import load_settings
from upscaled.state import DatabaseFailed, State, open_state
from upscaled.state.usage import Usage, UsageRow


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    settings = load_settings({}, data_dir=tmp_path / "data")
    make_tables(settings.data_dir)
    with open_state(settings) as opened:
        yield opened


class FailingUsage(Usage):
    """Usage of a real database that is down a number of times."""

    def __init__(self, state: State, failures: int, *, writes_first: bool = False) -> None:
        self._usage = state.usage
        self._failures = failures
        self._writes_first = writes_first

    def add(self, rows: Sequence[UsageRow]) -> None:
        if self._failures and not self._writes_first:
            self._failures -= 1
            raise DatabaseFailed("down")
        self._usage.add(rows)
        if self._failures:
            self._failures -= 1
            raise DatabaseFailed("the connection was lost", is_connection_lost=True)


def upscaled(device_s: float | None = 0.1, **values: object) -> AccessRecord:
    record = AccessRecord("r", "POST", "/v1/upscale", 200, device_s=device_s)
    for name, value in values.items():
        setattr(record, name, value)
    return record


def images(state: State) -> int:
    (total,) = state.usage.report()
    return total.images


@pytest.mark.parametrize(
    ("method", "route", "noted"),
    [("POST", "/v1/upscale", 1), ("GET", "/v1/upscale", 0), ("POST", "/v1/credits", 0)],
)
def test_only_upscales_are_noted(state: State, method: str, route: str, noted: int) -> None:
    recorder = UsageRecorder(state.usage)
    recorder.observe(AccessRecord("r", method, route, 200, device_s=0.1))
    asyncio.run(recorder.flush())
    assert images(state) == noted


def test_a_failed_write_is_repeated_and_logged_once(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = UsageRecorder(FailingUsage(state, 2))

    async def run() -> None:
        for _ in range(3):
            recorder.observe(upscaled())
            await recorder.flush()

    asyncio.run(run())
    assert images(state) == 3
    assert [each.event for each in caplog.records] == ["usage_not_written"]  # type: ignore[attr-defined]


def test_rows_whose_write_only_seemed_to_fail_are_counted_once(state: State) -> None:
    recorder = UsageRecorder(FailingUsage(state, 1, writes_first=True))
    recorder.observe(upscaled())
    asyncio.run(recorder.flush())
    asyncio.run(recorder.close())
    assert images(state) == 1


@pytest.mark.parametrize(("observed", "kept"), [(3, 3), (4, 3)])
def test_the_oldest_rows_are_dropped_if_the_database_is_down_for_long(
    state: State, caplog: pytest.LogCaptureFixture, observed: int, kept: int
) -> None:
    recorder = UsageRecorder(FailingUsage(state, 1), max_unwritten=3)
    for number in range(observed):
        recorder.observe(upscaled(ended_at_s=1000.0 + number))
    asyncio.run(recorder.flush())
    asyncio.run(recorder.flush())
    assert images(state) == kept
    (total,) = state.usage.report(since_s=1000 + observed - kept)
    assert total.images == kept
    lost = [each.fields for each in caplog.records if each.event == "usage_lost"]  # type: ignore[attr-defined]
    assert lost == ([{"rows": observed - kept}] if observed > kept else [])


def test_a_stop_under_a_database_that_is_down_reports_what_is_lost(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    recorder = UsageRecorder(FailingUsage(state, 1))
    recorder.observe(upscaled())
    asyncio.run(recorder.close())
    assert [each.fields for each in caplog.records] == [{"rows": 1}]  # type: ignore[attr-defined]


def test_alike_refusals_are_one_row_and_images_one_each() -> None:
    refused = upscaled(None, status=401, error_code="invalid_auth_token")
    other = upscaled(None, status=429, error_code="rate_limit_exceeded", key_id=1)
    rows = [build_row(each) for each in (refused, other, refused, refused)]
    assert [row.answers for row in merge_alike(rows)] == [3, 1]
    same = [build_row(upscaled(0.0)) for _ in range(2)]
    assert [row.answers for row in merge_alike(same)] == [1, 1]


@pytest.mark.parametrize("status", [None, 499])
def test_a_client_that_left_has_no_status_and_no_result(status: int | None) -> None:
    row = build_row(upscaled(status=status, result_width_px=8, result_height_px=8))
    assert (row.status, row.output_px, row.device_s) == (None, None, 0.1)
