from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from upscaled.batch.file_job import fingerprint
from upscaled.config import load_settings
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.upscale.model_choice import Rung, rungs_for
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.store import ModelStore

GENERAL = next(spec for spec in official_models() if spec.wdn is not None)
ANIME = next(spec for spec in official_models() if spec.wdn is None)


def of(spec: ModelSpec = GENERAL, scale: int = 4, **settings: object) -> bytes:
    with patch.object(ModelStore, "find", return_value=spec):
        return fingerprint(load_settings({}, **settings), scale, [Rung(model="x")])


def of_rungs(*rungs: Rung, **settings: object) -> bytes:
    return fingerprint(load_settings({}, **settings), 2, rungs)


@pytest.mark.parametrize(
    "settings",
    [
        {"jpeg_quality": 94},
        {"precision": "exact"},
        {"colour_lock": False},
        {"keep_copyright": True},
        {"deep_png": True},
        {"denoise": 0.5},
    ],
)
def test_every_setting_that_a_result_depends_on_changes_the_fingerprint(
    settings: dict[str, Any],
) -> None:
    assert of(**settings) != of()


def test_scale_model_and_weights_change_the_fingerprint() -> None:
    assert of(scale=2) != of()
    assert of(ANIME) != of()
    assert of(replace(GENERAL, sha256="0" * 64)) != of()
    assert GENERAL.wdn is not None
    assert of(replace(GENERAL, wdn=replace(GENERAL.wdn, sha256="0" * 64))) != of()


def test_settings_that_no_result_depends_on_do_not_change_the_fingerprint() -> None:
    assert of(threads=3, jobs_per_worker=9, log_level="debug", tile_window_px=512) == of()
    assert of(ANIME, denoise=0.5) == of(ANIME), "a model without that dial"


VIVID = Rung(model="realesrgan-x4plus", tempered_with="upscaled-x2", harmed_only=True, most_px=100)
FAITHFUL = Rung(model="upscaled-x2")


def test_tempering_and_each_possible_model_change_the_fingerprint() -> None:
    ladder = (VIVID, FAITHFUL)
    small, large = rungs_for(ladder, 100), rungs_for(ladder, 101)
    assert [rung.model for rung in small] == ["realesrgan-x4plus", "upscaled-x2"]
    assert [rung.model for rung in large] == ["upscaled-x2"]
    untempered = VIVID.model_copy(update={"tempered_with": ""})
    marks = {
        of_rungs(*small),
        of_rungs(*large),
        of_rungs(*rungs_for((untempered, FAITHFUL), 100)),
        of_rungs(VIVID),
        of_rungs(*small, temper="0.3"),
    }
    assert len(marks) == 5


def test_the_size_limits_of_models_do_not_change_the_fingerprint() -> None:
    """Nor is the budget: a batch continues where a picture comes to the same model."""
    other = VIVID.model_copy(update={"most_px": 5000, "most_deep_px": 90})
    small = rungs_for((VIVID, FAITHFUL), 100)
    assert of_rungs(*rungs_for((other, FAITHFUL), 100), auto_budget_s=99) == of_rungs(*small)
    assert of_rungs(FAITHFUL, temper="off") == of_rungs(FAITHFUL)


def test_a_choice_of_the_result_changes_the_fingerprint_and_none_does_not() -> None:
    settings, rungs = load_settings({}), [FAITHFUL]
    plain = fingerprint(settings, 2, rungs)
    assert fingerprint(settings, 2, rungs, NO_CHOICE) == plain
    chosen = {
        fingerprint(settings, 2, rungs, choice)
        for choice in (
            OutputChoice("webp"),
            OutputChoice("avif"),
            OutputChoice(quality=80),
            OutputChoice(max_side_px=80),
            OutputChoice(width_px=80),
            OutputChoice(height_px=80),
            OutputChoice(metadata="keep"),
            OutputChoice(metadata="keep-all"),
        )
    }
    assert len(chosen | {plain}) == 9
