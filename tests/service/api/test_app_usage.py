"""A usage row for each answer of `POST /v1/upscale` and each job's end, from a real service."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.service.api.executors import FIGURES, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import serve
from tests.service.api.waiting import wait_until
from upscaled.config import load_settings
from upscaled.pool.executor import PoolStats
from upscaled.state import open_state
from upscaled.state.schema import USAGE_ROWS


class ExecutorWithSlot(ResizingExecutor):
    """Has room for a job."""

    def stats(self) -> PoolStats:
        return replace(FIGURES, waiting=0, running=0, running_most=1)


def read_rows(data_dir: Path, **settings: Any) -> list[Any]:
    with (
        open_state(load_settings({}, data_dir=data_dir, **settings)) as state,
        state.database.read() as connection,
    ):
        return list(connection.execute(sa.select(USAGE_ROWS).order_by(USAGE_ROWS.c.at_s)))


@pytest.mark.parametrize("metering", [False, True])
def test_the_rows_of_all_answers_are_written_before_a_stop(tmp_path: Path, metering: bool) -> None:
    """All are written although the service stops right behind them."""
    with serve(tmp_path / "data", credits=10, metering=metering) as service:
        assert service.upload(picture(96, 64)).status_code == 200
        image = service.upload(headers={**service.headers, "Accept": "image/*"})
        assert image.status_code == 200
        assert service.upload(b"no image").status_code == 400
        assert service.upload(headers={"X-API-KEY": "wrong"}).status_code == 401
        dry = {**service.headers, "X-Upscale-Dry-Run": "true"}
        assert service.upload(headers=dry).status_code == 200
        twice = {**service.headers, "Idempotency-Key": "same"}
        for _ in range(2):
            assert service.upload(headers=twice).status_code == 200
        balance = service.balance()
    rows = read_rows(tmp_path / "data")
    assert sorted((row.kind, row.status, row.error_code, row.credits) for row in rows) == sorted(
        [
            ("upscale", 200, None, int(metering)),
            ("upscale", 200, None, int(metering)),
            ("upscale", 400, "malformed_image", 0),
            ("upscale", 401, "invalid_auth_token", 0),
            ("dry run", 200, None, 0),
            ("upscale", 200, None, int(metering)),
            ("replay", 200, None, 0),
        ],
        key=str,
    )
    assert sum(row.credits for row in rows) == 10 - balance
    first = next(row for row in rows if row.input_px == 96 * 64)
    assert (first.key_id, first.scale, first.format, first.output_px) == (1, 2, "jpeg", 4 * 96 * 64)
    assert first.model
    assert first.device_s is not None


def test_a_job_has_a_row_for_its_acceptance_and_one_for_its_end(
    tmp_path: Path, server_url: str
) -> None:
    settings: dict[str, Any] = {"database_url": server_url, "metering": True}
    with serve(tmp_path / "data", ExecutorWithSlot(), credits=1, **settings) as service:
        answer = service.upload(headers={**service.headers, "Prefer": "respond-async"})
        assert answer.status_code == 202
        path = answer.headers["Location"]

        def has_succeeded() -> bool:
            return bool(service.get(path, headers=service.headers).json()["ended_at"])

        wait_until(has_succeeded, 20)
    rows = read_rows(tmp_path / "data", **settings)
    assert sorted((row.kind, row.status, row.credits, row.output_px is None) for row in rows) == [
        ("job", 202, 0, True),
        ("job end", 200, 1, False),
    ]
