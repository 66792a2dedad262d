import threading

import pytest

from upscaled.batch.outcome import Kind, Outcome
from upscaled.cli import batch
from upscaled.cli.batch import ending_when_stalled
from upscaled.cli.batch_report import BatchReport

ENOUGH_STEPS_S = 0.3
STEP_S = 0.01


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set where the process would have ended."""
    event = threading.Event()

    def end(status: int) -> None:
        assert status == 1
        event.set()

    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr(batch, "STALL_S", 5 * STEP_S)
    return event


def test_a_device_that_returns_nothing_ends_the_batch_and_names_the_file(
    ended: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    report = BatchReport(is_json=True)
    with ending_when_stalled(report, STEP_S):
        report.on_part("/in/a.png", 0.5)
        assert ended.wait(60)
    assert "the device has returned nothing" in (error := capsys.readouterr().err)
    assert "/in/a.png; run the same command again to continue" in error


def test_files_that_wait_for_something_else_than_the_device_do_not_end_it(
    ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = BatchReport(is_json=True)
    with ending_when_stalled(report, STEP_S):
        assert not ended.wait(ENOUGH_STEPS_S), "names are still to come"
        report.on_part("/in/a.png", 1.0)
        assert not ended.wait(ENOUGH_STEPS_S), "its report cannot be written"
        with monkeypatch.context() as patient:  # a machine may pause between the two
            patient.setattr(batch, "STALL_S", 3600)
            report.on_part("/in/b.png", 0.5)
            report.add(Outcome("/in/b.png", Kind.PASSED_OVER))
        assert not ended.wait(ENOUGH_STEPS_S), "it is done"
