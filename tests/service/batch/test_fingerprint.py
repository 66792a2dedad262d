from dataclasses import replace
from typing import Any

import pytest

from models.registry import OFFICIAL, ModelSpec
from service.batch.fingerprint import fingerprint
from service.config import load_settings

GENERAL = next(spec for spec in OFFICIAL if spec.wdn is not None)
ANIME = next(spec for spec in OFFICIAL if spec.wdn is None)


def of(spec: ModelSpec = GENERAL, scale: int = 4, **settings: object) -> bytes:
    return fingerprint(load_settings({}, **settings), scale, spec)


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
def test_every_setting_that_a_result_depends_on_is_in_it(settings: dict[str, Any]) -> None:
    assert of(**settings) != of()


def test_so_are_scale_model_and_weights() -> None:
    assert of(scale=2) != of()
    assert of(ANIME) != of()
    assert of(replace(GENERAL, sha256="0" * 64)) != of()
    assert GENERAL.wdn is not None
    assert of(replace(GENERAL, wdn=replace(GENERAL.wdn, sha256="0" * 64))) != of()


def test_what_no_result_depends_on_is_not() -> None:
    assert of(threads=3, jobs_per_worker=9, log_level="debug", tile_window_px=512) == of()
    assert of(ANIME, denoise=0.5) == of(ANIME), "a model without that dial"
