"""Models opened in the way that is found fastest here."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.specs import TINY, spec_of
from tests.running import serve
from upscaled_models.autotune import autotuner
from upscaled_models.autotune.autotuner import UNMEASURED_ON_GPUS, Autotuner, TuningOptions
from upscaled_models.autotune.candidates import Candidate, float32_candidate, list_candidates
from upscaled_models.autotune.race import drive
from upscaled_models.autotune.timing import NO_LOAD, Load
from upscaled_models.backends.base import LoadedModel, Tunable
from upscaled_models.backends.device import Device
from upscaled_models.errors import BackendUnavailable
from upscaled_models.weights import build_network

CPU = Device(torch.device("cpu"), torch.float32, threads=1)
BUSY = Load(1.0, 0.0, 4.2, 0.9)


def tiny_model(name: str = "tiny", same_as: str = "") -> LoadedModel:
    torch.manual_seed(0)
    spec = replace(spec_of(name), same_as=same_as)
    return LoadedModel(spec, build_network("plain", TINY), window_px=96)


def tuner_of(
    folder: Path,
    precision: str = "auto",
    *,
    threads: int = 1,
    window_px: int = 0,
    model: LoadedModel | None = None,
) -> Autotuner:
    """The autotuner of a tiny model, its choices kept in a folder."""
    options = TuningOptions(folder / "tuning", precision, window_px=window_px)
    return Autotuner.of(model or tiny_model(), replace(CPU, threads=threads), options)


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotuner, "read_load", lambda: NO_LOAD)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a first start, which measured."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autotuner, "read_load", lambda: NO_LOAD)
        tuner_of(folder).open()
    return folder


@pytest.fixture
def started(tmp_path: Path, measured: Path) -> Path:
    """A copy of that folder for one test."""
    return shutil.copytree(measured, tmp_path / "started")


def test_a_second_start_uses_the_stored_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    first = tuner_of(tmp_path).open().info
    monkeypatch.setattr(autotuner, "Search", None)

    second = tuner_of(tmp_path).open().info

    assert first == second
    assert sum(f"tiny: {first.label}, windows of" in line for line in caplog.messages) == 2


@pytest.mark.slow
def test_a_second_name_of_a_file_shares_its_choice(started: Path) -> None:
    assert tuner_of(started, model=tiny_model("second", same_as="tiny")).find_choice()
    assert not tuner_of(started, model=tiny_model("other")).find_choice()


def test_a_choice_holds_for_its_precision_and_while_it_names_a_candidate(
    tmp_path: Path, started: Path
) -> None:
    assert tuner_of(tmp_path).find_choice() is None
    assert tuner_of(started).find_choice() is not None
    assert tuner_of(started, "fast").find_choice() is None
    (file,) = (started / "tuning").glob("*.json")
    dtype = tuner_of(started).open().info.label.split()[1]
    file.write_text(file.read_text().replace(f'"dtype": "{dtype}', '"dtype": "x'))
    assert tuner_of(started).find_choice() is None


def test_a_start_on_a_busy_machine_uses_the_default_and_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(autotuner, "read_load", lambda: BUSY)
    monkeypatch.setattr(autotuner, "Search", None)

    tuner_of(tmp_path).open()

    choice = tuner_of(tmp_path).find_choice()
    assert choice is not None
    assert choice.is_from_table
    assert not choice.is_settled
    assert "the machine was busy (other processes use 100% of the cores, load 4.2" in caplog.text


def test_a_slow_model_is_not_raced_at_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotuner, "SLOW_WEIGHTS", 1)
    monkeypatch.setattr(autotuner, "Search", None)
    tuner_of(tmp_path).open()
    choice = tuner_of(tmp_path).find_choice()
    assert choice is not None
    assert "measured when the service is idle" in choice.unsettled


def test_a_strength_of_denoising_is_checked_without_measuring_its_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("tiny@0.4", same_as="tiny")
    model = replace(model, spec=replace(model.spec, denoise=0.4), denoise=0.4)
    monkeypatch.setattr(autotuner, "Search", None)
    tuner_of(tmp_path, model=model).open()
    choice = tuner_of(tmp_path, model=model).find_choice()
    assert choice is not None
    assert choice.is_from_table
    assert "a request waits for this strength" in choice.unsettled
    assert tuner_of(tmp_path).find_choice() is None, "of the model itself"


def test_types_that_a_gpu_uses_unmeasured_are_among_its_candidates() -> None:
    gpu = replace(CPU, torch_device=torch.device("cuda"))
    labels = [each.label for each in list_candidates(tiny_model(), gpu, "auto")]
    assert set(UNMEASURED_ON_GPUS) <= set(labels)


@pytest.mark.slow
def test_a_choice_measured_without_a_deadline_is_settled_or_names_what_is_not(
    tmp_path: Path,
) -> None:
    """A real race, with a real clock."""
    tuner = tuner_of(tmp_path, window_px=96)

    choice, _ = drive(tuner.measure())
    tuner.store(choice)

    assert choice.untried == []
    assert {each.name for each in choice.measured} | set(choice.refused) == {
        each.name for each in tuner.candidates
    }
    assert choice.is_settled == all(each.is_settled for each in choice.measured)
    assert tuner.read_stored() == choice


def test_a_damaged_choice_is_made_again(started: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file,) = (started / "tuning").glob("*.json")
    file.write_text(file.read_text()[:100])

    tuner_of(started).open()

    assert "measuring again" in caplog.text
    assert len(file.read_text()) > 100


def test_each_precision_and_each_number_of_threads_has_a_choice_of_its_own(tmp_path: Path) -> None:
    keys = [
        tuner_of(tmp_path).file.key,
        tuner_of(tmp_path, "fast").file.key,
        tuner_of(tmp_path, threads=2).file.key,
        tuner_of(tmp_path, window_px=64).file.key,
    ]
    assert all(keys.count(key) == 1 for key in keys)


def test_the_result_of_the_chosen_engine_is_within_50_db_of_float32(started: Path) -> None:
    """Whatever that is on this machine."""
    window = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)

    engine = tuner_of(started).open()
    (result,) = engine.start([window]).finish()
    (exact,) = engine.start([window], is_exact=True).finish()

    assert np.square(result.astype(float) - exact).mean() < 255**2 / 10**5


@pytest.mark.slow
def test_a_server_tunes_at_its_first_start_only(tmp_path: Path) -> None:
    """At its second start it logs and keeps the choices of the first."""
    lines, files = [], []
    for _ in range(2):
        with serve(tmp_path, UPSCALED_PRECISION="auto") as server:
            pass
        logged = [line.partition("upscaled-")[2] for line in server.stderr if "windows of" in line]
        lines.append(logged)
        files.append({file: file.stat().st_mtime_ns for file in (tmp_path / "tuning").iterdir()})

    assert len(lines[0]) == 2
    assert lines[0] == lines[1]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_stored_choice_that_cannot_be_opened_here_is_made_again(
    started: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of our kernel, on a machine with the same GPU and an older driver."""
    refused: list[str] = []

    def break_once(candidate: Candidate) -> Candidate:
        def open_second_time() -> Tunable:
            if not refused:
                refused.append(candidate.label)
                raise BackendUnavailable("the driver is too old")
            return candidate.open()

        return replace(candidate, open=open_second_time)

    monkeypatch.setattr(
        autotuner,
        "list_candidates",
        lambda *args: [break_once(each) for each in list_candidates(*args)],
    )
    monkeypatch.setattr(
        autotuner, "float32_candidate", lambda *args: break_once(float32_candidate(*args))
    )

    engine = tuner_of(started).open()

    assert engine.info.model == "tiny"
    assert len(refused) == 1
    assert "the driver is too old, measuring again" in caplog.text
