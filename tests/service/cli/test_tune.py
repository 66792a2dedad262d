"""`upscaled tune` with a scripted race; `test_autotuner.py` has the real one."""

import json
from pathlib import Path

import pytest
from typer.testing import Result

from tests.models.autotune.fakes import FakeEngine, FakeMeter, candidate
from tests.service.cli.invoking import invoke
from upscaled.config import Settings
from upscaled.upscale.engines import find_choice, open_known_model
from upscaled_models.autotune import autotuner
from upscaled_models.autotune.timing import NO_LOAD, Meter


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def meter(**options: object) -> Meter:
        return FakeMeter()

    monkeypatch.setattr(autotuner, "read_load", lambda: NO_LOAD)
    monkeypatch.setattr(
        autotuner,
        "float32_candidate",
        lambda *given: candidate(FakeEngine(seconds_per_px=2e-6), "float32"),
    )
    monkeypatch.setattr(
        autotuner,
        "list_candidates",
        lambda *given: [
            candidate(FakeEngine(seconds_per_px=4e-7), "bfloat16"),
            candidate(FakeEngine(lambda levels: levels * 0), "int8"),
        ],
    )
    monkeypatch.setattr(autotuner, "ProcessMeter", meter)


def upscaled(data_dir: Path, *words: str, **settings: str) -> Result:
    settings["UPSCALED_DATA_DIR"] = str(data_dir)
    return invoke("tune", *words, env=settings)


def test_the_table_is_printed_and_the_choice_is_stored(tmp_path: Path) -> None:
    first = upscaled(tmp_path, "upscaled-x2")
    lines = first.stdout.splitlines()

    assert first.exit_code == 0
    assert lines[0].startswith("upscaled-x2: fake bfloat16, windows of ")
    assert "measured now" in lines[0]
    assert lines[1].split("  ")[0] == "CANDIDATE"
    assert lines[2].split()[:5] == ["fake", "bfloat16", "on", "1", "threads"]
    assert "chosen" in lines[2]
    assert "5.00 of fake bfloat16 on 1 threads  5.00 to 5.00" in lines[3]
    assert lines[4] == "refused: fake int8 on 1 threads: black"

    again = upscaled(tmp_path, "upscaled-x2")
    assert "measured before" in again.stdout
    assert again.stdout.splitlines()[1:] == lines[1:]
    assert "measured now" in upscaled(tmp_path, "upscaled-x2", "--again").stdout


def test_without_a_name_the_models_of_both_scales_are_measured(tmp_path: Path) -> None:
    document = json.loads(upscaled(tmp_path, "--json").stdout)

    assert [each["model"] for each in document] == [
        "upscaled-x2",
        "upscaled-x2-faithful",
        "upscaled-x4",
        "upscaled-x4-faithful",
    ]
    assert all(each["is_new"] and each["unsettled"] == "" for each in document)
    assert {row["name"] for row in document[0]["measured"]} == {
        "fake bfloat16 on 1 threads",
        "fake float32 on 1 threads",
    }


@pytest.mark.parametrize(
    "settings", [{"UPSCALED_PRECISION": "exact"}, {"UPSCALED_TUNING": "false"}]
)
def test_tune_reports_that_nothing_is_to_be_measured(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    refused = upscaled(tmp_path, **settings)
    assert refused.exit_code == 2
    assert "leave nothing to measure" in refused.stderr


def test_an_unknown_model_is_refused_by_name(tmp_path: Path) -> None:
    refused = upscaled(tmp_path, "unheard-of")
    assert refused.exit_code == 2
    assert "unheard-of" in refused.stderr


def test_a_start_opens_the_choice_that_tune_stored(tmp_path: Path) -> None:
    upscaled(tmp_path, "upscaled-x2")
    settings = Settings(data_dir=tmp_path)
    engine, is_chosen = open_known_model(settings, "upscaled-x2")
    assert is_chosen
    assert engine.seconds_per_px == 4e-7  # type: ignore[attr-defined]
    choice = find_choice(settings, "upscaled-x2")
    assert choice is not None
    assert choice.unsettled == ""
