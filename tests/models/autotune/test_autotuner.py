"""Real models, opened in the way that is found fastest here."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.running import serve
from upscaled.config import Settings
from upscaled.upscale.engines import open_engine, open_known_engine
from upscaled_models.autotune import autotuner
from upscaled_models.autotune.autotuner import (
    describe_options,
    find_choice,
    has_stored_choice,
    list_candidates,
    make_key,
    measure,
    open_tuned,
    store,
)
from upscaled_models.autotune.cache import read_choice
from upscaled_models.autotune.candidates import Candidate, Tunable
from upscaled_models.autotune.load import NO_LOAD, Load
from upscaled_models.autotune.race import drive
from upscaled_models.autotune.torch_candidates import float32_candidate
from upscaled_models.backends.cuda.kernel import KernelUnavailable
from upscaled_models.backends.device import choose_device
from upscaled_models.backends.loaded import LoadedModel
from upscaled_models.families.plain import plain_shape
from upscaled_models.registry import describe_model
from upscaled_models.weights import build_network

SHAPE = plain_shape(scale=2, layers=1, features=8)


def tiny_model() -> LoadedModel:
    torch.manual_seed(0)
    spec = describe_model(
        "tiny", "plain", SHAPE, file_name="", size_bytes=0, sha256="0", licence="", source="user"
    )
    return LoadedModel(spec, build_network("plain", SHAPE), window_px=96)


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotuner, "read_load", lambda: NO_LOAD)


def settings_of(data_dir: Path, precision: str = "auto") -> Settings:
    return Settings(device="cpu", threads=1, data_dir=data_dir, precision=precision)


def test_the_second_time_the_stored_choice_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_of(tmp_path)
    device = choose_device(settings)
    first = open_tuned(tiny_model(), device, settings)
    monkeypatch.setattr("upscaled_models.autotune.autotuner.tune", None)

    second = open_tuned(tiny_model(), device, settings)

    chosen = [(e.label, e.window_px, e.batch, e.proof) for e in (first, second)]
    assert chosen[0] == chosen[1]
    assert sum(f"tiny: {first.label}, windows of" in line for line in caplog.messages) == 2


def test_a_second_name_of_a_file_shares_its_choice(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    device = choose_device(settings)
    model = tiny_model()
    open_tuned(model, device, settings)
    assert has_stored_choice(
        replace(model, spec=replace(model.spec, name="second", same_as="tiny")), device, settings
    )
    assert not has_stored_choice(
        replace(model, spec=replace(model.spec, name="other")), device, settings
    )


def test_what_is_known_is_opened_as_a_start_would_and_nothing_is_measured(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    unknown, is_chosen = open_known_engine(settings, 2)
    assert (unknown.label, is_chosen) == ("torch float32", False)
    assert list(tmp_path.iterdir()) == []

    device = choose_device(settings)
    assert not has_stored_choice(tiny_model(), device, settings)
    started = open_tuned(tiny_model(), device, settings)
    assert has_stored_choice(tiny_model(), device, settings)
    assert not has_stored_choice(tiny_model(), device, settings_of(tmp_path, "fast"))
    (file,) = (tmp_path / "tuning").glob("*.json")
    file.write_text(
        file.read_text().replace(f'"dtype": "{started.label.split()[1]}', '"dtype": "x')
    )
    assert not has_stored_choice(tiny_model(), device, settings)


def test_a_start_on_a_busy_machine_takes_what_is_likely_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(autotuner, "read_load", lambda: Load(1.0, 0.0, 4.2, 0.9))
    monkeypatch.setattr(autotuner, "tune", None)
    settings, device = settings_of(tmp_path), choose_device(settings_of(tmp_path))

    open_tuned(tiny_model(), device, settings)

    choice = find_choice(tiny_model(), device, settings)
    assert choice is not None
    assert choice.is_from_table
    assert not choice.is_settled
    assert "the machine was busy (other processes use 100% of the cores, load 4.2" in caplog.text


def test_a_slow_model_is_not_raced_at_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotuner, "SLOW_WEIGHTS", 1)
    monkeypatch.setattr(autotuner, "tune", None)
    settings = settings_of(tmp_path)
    open_tuned(tiny_model(), choose_device(settings), settings)
    choice = find_choice(tiny_model(), choose_device(settings), settings)
    assert choice is not None
    assert "measured when the service is idle" in choice.unsettled


def test_a_choice_that_is_measured_without_hurry_is_settled_or_says_what_is_not(
    tmp_path: Path,
) -> None:
    """A real race, with a real clock."""
    settings = settings_of(tmp_path).model_copy(update={"tile_window_px": 96})
    device = choose_device(settings)
    known = describe_options(tiny_model(), device, settings)

    choice, _ = drive(measure(known, device))
    store(known, choice)

    assert choice.untried == []
    assert {each.name for each in choice.measured} | set(choice.refused) == {
        each.name for each in known.candidates
    }
    assert choice.is_settled == all(each.is_settled for each in choice.measured)
    assert read_choice(known.path, known.key) == choice


@pytest.mark.parametrize("values", [{"precision": "exact"}, {"tuning": False}])
def test_what_is_never_measured_is_known(values: dict[str, object], tmp_path: Path) -> None:
    settings = settings_of(tmp_path).model_copy(update=values)
    engine, is_chosen = open_known_engine(settings, 2)
    assert (engine.label, is_chosen) == ("torch float32", True)


def test_a_damaged_choice_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of(tmp_path)
    device = choose_device(settings)
    open_tuned(tiny_model(), device, settings)
    (file,) = (tmp_path / "tuning").glob("*.json")
    whole = file.read_text()
    file.write_text(whole[:100])

    open_tuned(tiny_model(), device, settings)

    assert "tuning again" in caplog.text
    assert len(file.read_text()) > 100


def test_each_precision_and_each_number_of_threads_has_a_choice_of_its_own(tmp_path: Path) -> None:
    model = tiny_model()
    keys = []
    for settings in (
        settings_of(tmp_path),
        settings_of(tmp_path, "fast"),
        settings_of(tmp_path).model_copy(update={"threads": 2}),
        settings_of(tmp_path).model_copy(update={"tile_window_px": 64}),
    ):
        device = choose_device(settings)
        keys.append(make_key(model, device, settings, [float32_candidate(model, device)]))

    assert all(keys.count(key) == 1 for key in keys)


def test_what_is_chosen_gives_float32s_picture(tmp_path: Path) -> None:
    """Whatever that is on this machine."""
    window = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    settings = settings_of(tmp_path)

    engine = open_tuned(tiny_model(), choose_device(settings), settings)
    (result,) = engine.start([window]).finish()
    (exact,) = engine.start([window], is_exact=True).finish()

    assert np.square(result.astype(float) - exact).mean() < 255**2 / 10**5


@pytest.mark.parametrize("change", [{"precision": "exact"}, {"tuning": False}])
def test_nothing_is_tuned_in_float32_or_where_it_is_off(
    tmp_path: Path, change: dict[str, object]
) -> None:
    engine = open_engine(settings_of(tmp_path).model_copy(update=change), 4)

    assert (engine.label, engine.window_px, engine.proof) == ("torch float32", 384, "")
    assert not (tmp_path / "tuning").exists()


@pytest.mark.slow
def test_a_server_tunes_at_its_first_start_only(tmp_path: Path) -> None:
    """At its second start it tells and keeps the choices of the first."""
    lines, files = [], []
    for _ in range(2):
        with serve(tmp_path, UPSCALED_PRECISION="auto") as server:
            pass
        told = [line.partition("upscaled-")[2] for line in server.stderr if "windows of" in line]
        lines.append(told)
        files.append({file: file.stat().st_mtime_ns for file in (tmp_path / "tuning").iterdir()})

    assert len(lines[0]) == 2
    assert lines[0] == lines[1]
    assert files[0] == files[1]


def test_a_stored_choice_that_cannot_be_opened_here_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of our kernel, on a machine with the same GPU and an older driver."""
    settings = settings_of(tmp_path)
    device = choose_device(settings)
    open_tuned(tiny_model(), device, settings)
    refused: list[str] = []

    def spoil(candidate: Candidate) -> Candidate:
        def open_second_time() -> Tunable:
            if not refused:
                refused.append(candidate.label)
                raise KernelUnavailable("the driver is too old")
            return candidate.open()

        return replace(candidate, open=open_second_time)

    monkeypatch.setattr(
        autotuner,
        "list_candidates",
        lambda *given: [spoil(each) for each in list_candidates(*given)],
    )
    monkeypatch.setattr(
        autotuner, "float32_candidate", lambda *given: spoil(float32_candidate(*given))
    )

    engine = open_tuned(tiny_model(), device, settings)

    assert engine.model == "tiny"
    assert len(refused) == 1
    assert "the driver is too old, tuning again" in caplog.text
