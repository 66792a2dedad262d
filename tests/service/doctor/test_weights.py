import shutil
from pathlib import Path

import pytest

from tests.service.doctor.conftest import MakeSettings
from tests.service.state.disks import closed_to_us
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.weights import check_models
from upscaled_models.registry import DEFAULT_DIR, official_models
from upscaled_models.store import ModelStore

GENERAL = next(spec for spec in official_models() if spec.name == "realesr-general-x4v3")


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_the_shipped_models_are_whole(make_settings: MakeSettings) -> None:
    finding = only(check_models(make_settings()))
    assert finding.status is Status.OK
    assert "upscaled-x2, upscaled-x2-faithful, upscaled-x4" in finding.found


@pytest.mark.parametrize(
    ("chosen", "planted_bytes", "status", "text", "advice"),
    [
        (GENERAL.name, GENERAL.size_bytes, Status.FAILURE, f"{GENERAL.name}: wrong hash: /",
         f"upscaled models fetch {GENERAL.name}"),
        ("auto", 10, Status.WARNING, "wrong size", ""),
        (GENERAL.name, None, Status.FAILURE, "is not there, and the settings choose it", ""),
        ("upscaled-x5", None, Status.FAILURE,
         "there is no model 'upscaled-x5'; there is: upscaled-x", ""),
    ],
    ids=["wrong hash", "wrong size, not chosen", "not here", "unknown"],
)  # fmt: skip
def test_a_file_that_is_wrong_or_missing_is_a_failure_if_it_is_chosen(
    chosen: str,
    planted_bytes: int | None,
    status: Status,
    text: str,
    advice: str,
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(model_x2=chosen, model_x4=chosen)
    if planted_bytes is not None:
        settings.models_dir.mkdir(parents=True)
        (settings.models_dir / GENERAL.file_name).write_bytes(b"\0" * planted_bytes)
    finding = only(check_models(settings))
    assert finding.status is status
    assert text in finding.found
    assert advice in finding.advice


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


def test_models_of_another_user_need_no_new_installation(make_settings: MakeSettings) -> None:
    settings = make_settings()
    (settings.models_dir / "own").mkdir(parents=True)
    with closed_to_us(settings.models_dir):
        finding = only(check_models(settings))
    assert finding.status is Status.FAILURE
    assert "Permission denied" in finding.found
    assert "to the user that runs the service" in finding.advice


def test_a_damaged_record_of_a_user_s_model_is_reported(make_settings: MakeSettings) -> None:
    settings = make_settings()
    own = settings.models_dir / "own"
    own.mkdir(parents=True)
    (own / "mine.json").write_text("{")
    assert only(check_models(settings)).status is Status.WARNING
    assert only(check_models(make_settings(model_x4="mine"))).status is Status.FAILURE
