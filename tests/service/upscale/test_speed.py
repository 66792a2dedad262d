from pathlib import Path

import pytest

from upscaled.config import Settings, load_settings
from upscaled.upscale.speed import Speed, find_speed, forget_speed, read_speed
from upscaled_models.registry import official_models

SPEC = next(spec for spec in official_models() if spec.name == "realesrgan-x4plus")
SPEED = Speed(s_per_px=4e-5, deep_s_per_px=1.3e-4, window_px=256, shape_step_px=32)


def settings_of(folder: Path, **more: object) -> Settings:
    return load_settings({}, data_dir=folder, device="cpu", threads=2, **more)


def never() -> Speed:
    raise AssertionError("measured again")


def test_a_speed_is_measured_once_for_a_machine(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert read_speed(settings, SPEC) is None
    assert find_speed(settings, SPEC, lambda: SPEED) == SPEED
    assert find_speed(settings, SPEC, never) == SPEED == read_speed(settings, SPEC)


@pytest.mark.parametrize(
    "change",
    [{"threads": 1}, {"precision": "fast"}, {"workers": 2}, {"tile_window_px": 256}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_have_a_speed_of_their_own(
    tmp_path: Path, change: dict[str, object]
) -> None:
    find_speed(settings_of(tmp_path), SPEC, lambda: SPEED)
    other = settings_of(tmp_path).model_copy(update=change)
    assert read_speed(other, SPEC) is None


def test_the_budget_is_no_reason_to_measure_again(tmp_path: Path) -> None:
    find_speed(settings_of(tmp_path), SPEC, lambda: SPEED)
    assert read_speed(settings_of(tmp_path, auto_budget_s=1), SPEC) == SPEED


def test_it_is_measured_again_when_it_was_forgotten_or_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path)
    find_speed(settings, SPEC, lambda: SPEED)
    forget_speed(settings, SPEC)
    forget_speed(settings, SPEC)
    faster = SPEED.model_copy(update={"s_per_px": 1e-6})
    assert find_speed(settings, SPEC, lambda: faster) == faster
    (path,) = (tmp_path / "tuning").glob("speed-*.json")
    path.write_text("{")
    assert find_speed(settings, SPEC, lambda: SPEED) == SPEED
    assert "not readable" in caplog.text
