"""The models that settings name: found, refused or missing before anything heavy is loaded."""

import json
import shutil
from pathlib import Path

import pytest

from tests.service.upscale.test_engines import BY_NAME, store_with
from upscaled.config import Settings, SettingsError
from upscaled.upscale.named_models import choose_model, require_models
from upscaled_models.errors import ModelRefused, UnknownModel
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.registry import DEFAULT_DIR
from upscaled_models.store import ModelStore


def test_a_model_in_16_bits_replaces_its_release_until_that_is_installed(tmp_path: Path) -> None:
    release = BY_NAME["realesrgan-x4plus"]
    half = release.packaged
    assert half is not None
    store = ModelStore(tmp_path)
    store.target(half).touch()
    named = Settings(model_x4=release.name)

    assert choose_model(named, 4, store) == half

    store.target(release).touch()

    assert choose_model(named, 4, store) == release


def test_a_model_named_for_one_scale_is_not_used_for_the_other(tmp_path: Path) -> None:
    store = store_with(tmp_path, "realesr-animevideov3")
    settings = Settings(model_x2="realesr-animevideov3")

    assert choose_model(settings, 2, store).name == "realesr-animevideov3"
    assert choose_model(settings, 4, store).name == "upscaled-x4"


def test_the_error_for_an_absent_model_names_the_path_of_its_file(tmp_path: Path) -> None:
    settings = Settings(model_x4="realesrgan-x4plus")

    with pytest.raises(SettingsError) as error:
        choose_model(settings, 4, ModelStore(tmp_path))

    assert "UPSCALED_MODEL_X4" in str(error.value)
    assert str(tmp_path / "RealESRGAN_x4plus.pth") in str(error.value)
    assert "upscaled models fetch realesrgan-x4plus" in str(error.value)


@pytest.mark.parametrize("named_by", [None, "--model"])
def test_the_error_for_an_unknown_model_says_what_named_it(
    tmp_path: Path, named_by: str | None
) -> None:
    setting = named_by or "UPSCALED_MODEL_X2"
    with pytest.raises(UnknownModel, match=f"^{setting}='upscaled-x5': there is no model"):
        choose_model(Settings(model_x2="upscaled-x5"), 2, ModelStore(tmp_path), named_by=named_by)


def test_a_model_of_the_users_that_does_not_make_both_scales_is_refused_by_name(
    tmp_path: Path,
) -> None:
    """As 0.1.0 took them: it is in the folder already, and would fail at every request."""
    own = tmp_path / "models" / "own"
    own.mkdir(parents=True)
    record = {
        "file": "mine.pth",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "family": "srvgg",
        "shape": dict(srvgg_shape(upscale=3, num_conv=1, num_feat=4)),
    }
    (own / "mine.json").write_text(json.dumps(record))
    for scale in (2, 4):
        settings = Settings(data_dir=tmp_path, model_x2="mine", model_x4="mine")
        with pytest.raises(ModelRefused, match=f"^UPSCALED_MODEL_X{scale}='mine': mine: a model"):
            choose_model(settings, scale, ModelStore(settings.models_dir))


@pytest.mark.parametrize("missing", ["upscaled-x4", "upscaled-x4-faithful"])
def test_a_shipped_file_that_is_missing_is_a_damaged_installation(
    tmp_path: Path, missing: str
) -> None:
    shipped = tmp_path / "default"
    shutil.copytree(DEFAULT_DIR, shipped)
    (shipped / f"{missing}.safetensors").unlink()
    with pytest.raises(SettingsError, match=f"{missing}.safetensors is not here; .* damaged"):
        choose_model(Settings(), 4, ModelStore(tmp_path, shipped))


@pytest.mark.parametrize("missing", ["model_x2", "model_x4"])
def test_the_models_of_both_scales_are_required(tmp_path: Path, missing: str) -> None:
    require_models(Settings(data_dir=tmp_path))
    with pytest.raises(SettingsError, match=f"UPSCALED_{missing.upper()}='realesrgan-x4plus'"):
        require_models(
            Settings.model_validate({"data_dir": tmp_path, missing: "realesrgan-x4plus"})
        )
