import os
import time
from types import SimpleNamespace

import pytest

from tests.service.doctor.conftest import MakeSettings
from upscaled.doctor.finding import Status
from upscaled.doctor.hardware import FAIL_DRIFT_S, WARN_DRIFT_S, check_clock, describe_drift


def test_the_clock_of_a_machine_that_runs_tests_is_right(make_settings: MakeSettings) -> None:
    (finding,) = check_clock(make_settings())
    assert finding.status is Status.OK


def test_a_clock_before_the_installation_is_a_failure(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upscaled.doctor.hardware.time", SimpleNamespace(time=lambda: 0.0))
    (finding,) = check_clock(make_settings())
    assert finding.status is Status.FAILURE
    assert "1970-01-01 00:00:00 UTC is before this installation was made" in finding.found


def test_a_disk_with_another_clock_is_reported(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 3600)
    monkeypatch.setattr("upscaled.doctor.hardware.time", ahead)
    settings = make_settings()
    settings.data_dir.mkdir()
    _, disk = check_clock(settings)
    assert disk.check == "disk clock"
    assert disk.status is Status.FAILURE
    assert "behind this machine's" in disk.found
    assert os.listdir(settings.data_dir) == []


@pytest.mark.parametrize(
    ("drift_s", "status"),
    [
        (WARN_DRIFT_S, Status.OK),
        (-WARN_DRIFT_S - 0.1, Status.WARNING),
        (FAIL_DRIFT_S, Status.WARNING),
        (FAIL_DRIFT_S + 0.1, Status.FAILURE),
    ],
)
def test_drift_is_reported_on_both_sides_of_its_limits(drift_s: float, status: Status) -> None:
    assert describe_drift("clock", drift_s).status is status
