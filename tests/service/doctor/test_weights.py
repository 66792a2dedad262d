import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.weights import check_models
from upscaled_models.registry import DEFAULT_DIR, official_models
from upscaled_models.store import ModelStore

MakeSettings = Callable[..., Settings]
GENERAL = next(spec for spec in official_models() if spec.name == "realesr-general-x4v3")


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def plant(settings: Settings, size_bytes: int) -> None:
    settings.models_dir.mkdir(parents=True)
    (settings.models_dir / GENERAL.file_name).write_bytes(b"\0" * size_bytes)


def test_the_shipped_models_are_whole(make_settings: MakeSettings) -> None:
    finding = only(check_models(make_settings()))
    assert finding.status is Status.OK
    assert "upscaled-x2, upscaled-x4" in finding.found


def test_a_wrong_hash_of_a_chosen_model_is_a_failure(make_settings: MakeSettings) -> None:
    settings = make_settings(model_x4=GENERAL.name)
    plant(settings, GENERAL.size_bytes)
    finding = only(check_models(settings))
    assert finding.status is Status.FAILURE
    assert f"{GENERAL.name}: wrong hash: {settings.models_dir}" in finding.found
    assert f"upscaled models fetch {GENERAL.name}" in finding.advice


def test_a_wrong_file_that_no_setting_names_is_a_warning(make_settings: MakeSettings) -> None:
    settings = make_settings()
    plant(settings, 10)
    finding = only(check_models(settings))
    assert finding.status is Status.WARNING
    assert "wrong size" in finding.found


def test_a_chosen_model_that_is_not_here_is_a_failure(make_settings: MakeSettings) -> None:
    finding = only(check_models(make_settings(model_x2=GENERAL.name, model_x4=GENERAL.name)))
    assert finding.status is Status.FAILURE
    assert "is not there, and the settings choose it" in finding.found


def test_a_model_that_does_not_exist_is_a_failure(make_settings: MakeSettings) -> None:
    finding = only(check_models(make_settings(model_x4="upscaled-x5")))
    assert finding.status is Status.FAILURE
    assert "there is no model 'upscaled-x5'; there is: upscaled-x" in finding.found


@pytest.mark.parametrize("damage", ["gone", "cut", "no manifest"])
def test_a_damaged_installation_is_a_failure(
    damage: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    shipped = tmp_path / "default"
    shutil.copytree(DEFAULT_DIR, shipped)
    weights = shipped / "upscaled-x4.safetensors"
    if damage == "gone":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        for manifest in shipped.glob("*.json"):
            manifest.unlink()
    settings = make_settings()
    finding = only(check_models(settings, ModelStore(settings.models_dir, shipped)))
    assert finding.status is Status.FAILURE
    assert "install upscaled again" in finding.advice


def test_a_damaged_record_of_a_user_s_model_is_reported(make_settings: MakeSettings) -> None:
    settings = make_settings()
    own = settings.models_dir / "own"
    own.mkdir(parents=True)
    (own / "mine.json").write_text("{")
    assert only(check_models(settings)).status is Status.WARNING
    assert only(check_models(make_settings(model_x4="mine"))).status is Status.FAILURE
