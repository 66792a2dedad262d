"""A choice that a start left unsettled is measured in idle time, and adopted."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.autotune.fakes import FakeEngine, FakeMeter, candidate
from tests.models.autotune.test_autotuner import BUSY, tuner_of
from upscaled_models.autotune import autotuner
from upscaled_models.autotune.autotuner import Autotuner
from upscaled_models.autotune.cache import Choice, Claim
from upscaled_models.autotune.retuner import MOST_ROUNDS, Adopted, Retuner
from upscaled_models.autotune.timing import Meter
from upscaled_models.backends.base import Engine


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine at the start, and candidates of known speed."""

    def float32(*args: object) -> object:
        return candidate(FakeEngine(seconds_per_px=2e-6), "float32")

    def faster(*args: object) -> object:
        return [candidate(FakeEngine(seconds_per_px=4e-7, label="fake bfloat16"), "bfloat16")]

    def meter(**options: object) -> Meter:
        return FakeMeter()

    monkeypatch.setattr(autotuner, "read_load", lambda: BUSY)
    monkeypatch.setattr(autotuner, "float32_candidate", float32)
    monkeypatch.setattr(autotuner, "list_candidates", faster)
    monkeypatch.setattr(autotuner, "ProcessMeter", meter)


def start(data_dir: Path) -> tuple[Retuner, Engine]:
    engine = tuner_of(data_dir).open()
    return retuner_of(data_dir, engine), engine


def retuner_of(data_dir: Path, engine: Engine) -> Retuner:
    return Retuner(lambda: tuner_of(data_dir), engine)


def stored(data_dir: Path) -> Choice:
    choice = tuner_of(data_dir).find_choice()
    assert choice is not None
    return choice


def run(measuring: Retuner) -> list[Adopted]:
    adopted: list[Adopted] = []
    for _ in range(300):
        if measuring.is_done:
            return adopted
        found = measuring.slice(lambda: True)
        if found is not None:
            adopted.append(found)
    raise AssertionError("it does not end")


def test_the_default_of_a_busy_start_is_measured_stored_and_adopted(tmp_path: Path) -> None:
    measuring, engine = start(tmp_path)
    assert stored(tmp_path).is_from_table

    (adopted,) = run(measuring)

    assert engine.seconds_per_px == 2e-6  # type: ignore[attr-defined]
    assert adopted.engine.seconds_per_px == 4e-7  # type: ignore[attr-defined]
    assert adopted.choice == stored(tmp_path)
    assert adopted.choice.dtype == "bfloat16"
    assert adopted.choice.is_settled


def test_a_settled_choice_is_not_measured_again(tmp_path: Path) -> None:
    run(start(tmp_path)[0])
    again, _ = start(tmp_path)

    assert again.slice(lambda: True) is None
    assert again.is_done
    assert not again.is_measuring


def test_a_choice_of_another_process_is_adopted_without_measuring(tmp_path: Path) -> None:
    first, engine = start(tmp_path)
    second = retuner_of(tmp_path, engine)
    run(first)

    adopted = second.slice(lambda: True)

    assert adopted is not None
    assert adopted.choice == stored(tmp_path)
    assert second.is_done


def test_a_choice_that_is_stored_later_is_noticed(tmp_path: Path) -> None:
    """As `upscaled tune` does beside a service."""
    measuring, _ = start(tmp_path)
    run(measuring)
    before = measuring.is_done

    tuner_of(tmp_path).store(stored(tmp_path).model_copy(update={"batch": 2}))

    assert (before, measuring.is_done) == (True, False)
    adopted = measuring.slice(lambda: True)
    assert adopted is not None
    assert adopted.engine.info.batch == 2


def test_two_processes_do_not_measure_at_once(tmp_path: Path) -> None:
    first, engine = start(tmp_path)
    second = retuner_of(tmp_path, engine)
    first.slice(lambda: True)
    second.slice(lambda: True)
    assert (first.is_measuring, second.is_measuring) == (True, False)

    run(first)
    claim = Claim.acquire(tmp_path / "tuning")

    assert claim is not None
    claim.release()


def test_only_a_slow_model_begins_anew_after_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its candidates take much memory, which a request may need."""
    measuring, engine = start(tmp_path)
    measuring.slice(lambda: True)
    measuring.interrupt()
    assert measuring.is_measuring

    monkeypatch.setattr(autotuner, "SLOW_WEIGHTS", 1)
    slow = retuner_of(tmp_path / "other", engine)
    slow.slice(lambda: True)
    assert slow.is_measuring
    slow.interrupt()
    assert not slow.is_measuring


def test_a_choice_that_never_settles_is_measured_a_limited_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring, _ = start(tmp_path)
    real_store = Autotuner.store

    def store_unsettled(tuner: Autotuner, choice: Choice) -> None:
        real_store(tuner, choice.model_copy(update={"unsettled": "too restless"}))

    monkeypatch.setattr(Autotuner, "store", store_unsettled)
    monkeypatch.setattr(Choice, "is_settled", property(lambda choice: False))

    assert len(run(measuring)) == MOST_ROUNDS


def test_a_failed_measurement_keeps_the_running_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring, _ = start(tmp_path)
    broken = replace(candidate(), open=lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(autotuner, "float32_candidate", lambda *args: broken)

    assert run(measuring) == []
    assert "fake: cannot be measured" in caplog.text
    assert measuring.is_done
