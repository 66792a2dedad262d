from pathlib import Path

import pytest

from tests.service.upscale.box_engine import BoxEngine
from upscaled.config import Settings, load_settings
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.speed import SPEED_RUNS, Speed, find_speed, forget_speed, read_speed
from upscaled_models.registry import official_models

SPEC = next(spec for spec in official_models() if spec.name == "realesrgan-x4plus")


def settings_of(folder: Path, **more: object) -> Settings:
    options: dict[str, object] = {"device": "cpu", "precision": "exact", "threads": 2}
    return load_settings({}, data_dir=folder, **(options | more))


def find(settings: Settings) -> tuple[Speed, int]:
    """Return the speed, and how many windows were run for it."""
    engine = BoxEngine()
    with Scheduler() as scheduler:
        return find_speed(settings, SPEC, engine, scheduler), len(engine.seen)


def test_a_speed_is_measured_once_for_a_machine(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert read_speed(settings, SPEC) is None
    speed, windows = find(settings)
    assert windows == SPEED_RUNS + 1, "in the engine's precision, and in float32"
    assert (speed.window_px, speed.shape_step_px) == (32, 1)
    assert find(settings) == (speed, 0)
    assert read_speed(settings, SPEC) == speed


@pytest.mark.parametrize(
    "change",
    [{"threads": 1}, {"precision": "fast"}, {"workers": 2}, {"tile_window_px": 256}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_have_a_speed_of_their_own(
    tmp_path: Path, change: dict[str, object]
) -> None:
    find(settings_of(tmp_path))
    assert read_speed(settings_of(tmp_path, **change), SPEC) is None


def test_the_budget_is_no_reason_to_measure_again(tmp_path: Path) -> None:
    speed, _ = find(settings_of(tmp_path))
    assert read_speed(settings_of(tmp_path, auto_budget_s=1), SPEC) == speed


def test_a_speed_that_was_forgotten_or_cannot_be_read_is_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path)
    find(settings)
    forget_speed(settings, SPEC)
    forget_speed(settings, SPEC)
    assert find(settings)[1]
    (path,) = (tmp_path / "tuning").glob("speed-*.json")
    path.write_text("{")
    assert find(settings)[1]
    assert "not readable" in caplog.text
