"""Strengths of denoising: the rule that decides them, and an engine for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.denoising import NAME, PARTNER, place_file, place_tiny_pair
from tests.service.image.samples import picture, save
from upscaled import InvalidParameter, Upscaler
from upscaled.config import Settings, load_settings
from upscaled.upscale.named_models import name_denoised
from upscaled.upscale.opening import open_core
from upscaled_models.errors import ModelRefused
from upscaled_models.registry import MAX_STRENGTHS, STRENGTH_STEPS

SOURCE = save(picture(16, 16), "PNG")
OPTIONS: dict[str, Any] = {"device": "cpu", "precision": "exact", "threads": 1}


def settings_in(folder: Path, **values: Any) -> Settings:
    return load_settings({}, data_dir=folder, **OPTIONS, **values)


@pytest.mark.parametrize("model", ["", "upscaled-x4", PARTNER])
def test_a_model_without_the_choice_is_refused_with_the_one_that_has_it(
    tmp_path: Path, model: str
) -> None:
    text = f"{model or 'auto'} has no strength of denoising; {NAME} has"
    with pytest.raises(ModelRefused, match=text):
        name_denoised(settings_in(tmp_path), 4, model, 0.5)


def test_the_model_of_the_settings_counts_where_none_is_named(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, model_x4=NAME)
    place_file(settings.models_dir, NAME)
    place_file(settings.models_dir, PARTNER)
    assert name_denoised(settings, 4, "", 0.52) == f"{NAME}@0.5"
    assert name_denoised(settings, 2, NAME, 0) == f"{NAME}@0.0"
    with pytest.raises(ModelRefused, match="auto"):
        name_denoised(settings, 2, "", 0.5)


def test_files_that_are_not_here_are_named_and_the_full_strength_needs_no_partner(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    with pytest.raises(ModelRefused, match=f"weights of {NAME}, "):
        name_denoised(settings, 4, NAME, 1)
    place_file(settings.models_dir, NAME)
    assert name_denoised(settings, 4, NAME, 1) == f"{NAME}@1.0"
    with pytest.raises(ModelRefused, match=f"weights of {PARTNER}, "):
        name_denoised(settings, 4, NAME, 0.9)


@pytest.mark.slow
def test_each_strength_is_an_engine_of_its_own_and_few_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    place_tiny_pair(settings.models_dir, monkeypatch)
    with open_core(settings, scales=(4,), decoders=1) as core:
        made = [
            core.upscale(SOURCE, 4, model=f"{NAME}@{at / STRENGTH_STEPS}")
            for at in range(STRENGTH_STEPS + 1)
        ]
        assert [(each.model, each.denoise) for each in made] == [
            (NAME, at / STRENGTH_STEPS) for at in range(STRENGTH_STEPS + 1)
        ]
        assert len({each.data for each in made}) == STRENGTH_STEPS + 1
        assert made[0].timings.opening_s > 0
        named = {name for name in core.models.loaded() if name.startswith(NAME)}
        assert named == {f"{NAME}@0.8", f"{NAME}@0.9", f"{NAME}@1.0"}
        assert len(named) == MAX_STRENGTHS
        plain = core.upscale(SOURCE, 4, model=NAME)
        assert (plain.data, plain.denoise) == (made[-1].data, None)
        (settings.models_dir / f"{PARTNER}.safetensors").unlink()
        with pytest.raises(InvalidParameter, match="no model"):
            core.upscale(SOURCE, 4, model=f"{NAME}@0.1")


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upscaler]:
    settings = settings_in(tmp_path)
    place_tiny_pair(settings.models_dir, monkeypatch)
    with Upscaler(data_dir=tmp_path, scales=(4,), **OPTIONS) as opened:
        yield opened


def test_python_code_can_choose_a_strength_for_each_image(up: Upscaler) -> None:
    pixels = picture(16, 16)
    soft, grainy = (up.upscale(pixels, model=NAME, denoise=strength) for strength in (1, 0.2))
    assert not np.array_equal(soft, grainy)
    (many,) = up.many([pixels], model=NAME, denoise=0.2)
    assert np.array_equal(many, grainy)
    assert up.upscale_bytes(SOURCE, model=NAME, denoise=0.2).denoise == 0.2
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidParameter, match="a number from 0 to 1"):
            up.upscale(pixels, model=NAME, denoise=strength)
    with pytest.raises(InvalidParameter, match="denoise: auto has no strength"):
        up.upscale(pixels, denoise=0.5)
