"""The mix and the load are read from the log that a real service writes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts.simulation.access_log import read_log
from scripts.simulation.plan import BadPlan
from tests.running import serve
from tests.service.pool.pools import picture

BEGUN = datetime(2026, 11, 26, tzinfo=UTC)


def line(at_s: float, **fields: object) -> str:
    time = (BEGUN + timedelta(seconds=at_s)).isoformat(timespec="milliseconds")
    record = {"time": time.replace("+00:00", "Z"), "outcome": "ok", "scale": 4}
    record |= {"width_px": 64, "height_px": 32, "source_bytes": 900, "result_bytes": 7000}
    return json.dumps(record | fields)


def test_pictures_and_bytes_are_those_delivered() -> None:
    refused = line(3, outcome="refused", result_bytes=None)
    probe = json.dumps({"time": "2026-11-26T00:00:01.000Z", "outcome": "ok", "route": "/readyz"})
    lines = [line(0), "not JSON", "[1]", probe, refused, line(10, width_px=128, scale=2)]
    pictures, images_per_hour = read_log(lines)
    assert pictures.px.tolist() == [64 * 32, 128 * 32]
    assert pictures.scale.tolist() == [4, 2]
    assert pictures.source_bytes.tolist() == [900, 900]
    assert pictures.result_bytes.tolist() == [7000, 7000]
    assert images_per_hour == pytest.approx(2 / 10 * 3600)


def test_the_load_is_that_of_the_busiest_hour() -> None:
    quiet = [line(at * 600) for at in range(12)]
    busy = [line(4 * 3600 + at) for at in range(500)]
    assert read_log(quiet + busy).images_per_hour == 500


@pytest.mark.parametrize("lines", [[], [line(0)], [line(0, outcome="refused"), line(1)]])
def test_a_log_without_pictures_is_refused(lines: list[str]) -> None:
    with pytest.raises(BadPlan, match="delivered"):
        read_log(lines)


@pytest.mark.slow
def test_the_log_of_a_real_service_is_read(tmp_path: Path) -> None:
    import requests

    with serve(tmp_path, UPSCALED_LOG_FORMAT="json", UPSCALED_TUNING="false") as server:
        for side in (64, 80):
            requests.post(
                f"{server.url}/v1/upscale",
                headers={"X-API-KEY": server.key},
                files={"image": picture(side)},
                data={"scale": "2"},
                timeout=60,
            ).raise_for_status()
        server.stop()
        pictures, _ = read_log(server.stderr)
    assert pictures.px.tolist() == [64 * 64, 80 * 80]
    assert pictures.result_bytes.min() > 0
