import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.service.upscale.box_engine import BoxEngine
from upscaled.config import Settings, load_settings
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.speed import SPEED_RUNS, Speed, find_speed, forget_speed, read_speed
from upscaled_models.backends.base import Started, Window
from upscaled_models.registry import official_models

COLD_S = 0.25

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
    assert windows == 2 * SPEED_RUNS, "in the engine's precision, and in float32"
    assert (speed.window_px, speed.shape_step_px, speed.computes_bands) == (32, 1, False)
    assert find(settings) == (speed, 0)
    assert read_speed(settings, SPEC) == speed


@dataclass
class ColdEngine(BoxEngine):
    """Takes `COLD_S` longer for the first window of a type, as a GPU that looks for its kernels."""

    types: set[object] = field(default_factory=set)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        if windows[0].dtype not in self.types:
            self.types.add(windows[0].dtype)
            end = time.process_time() + COLD_S  # at work: a processor's waiting does not count
            while time.process_time() < end:
                pass
        return super().start(windows, reduce, is_exact=is_exact)


def test_the_time_of_a_shapes_first_run_does_not_count_in_the_speed(tmp_path: Path) -> None:
    with Scheduler() as scheduler:
        speed = find_speed(settings_of(tmp_path), SPEC, ColdEngine(), scheduler)
    cold_s_per_px = COLD_S / 2 / 32**2  # of two threads, for a window of 32 px
    assert speed.s_per_px < cold_s_per_px / 2
    assert speed.deep_s_per_px < cold_s_per_px / 2


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


def test_another_budget_does_not_measure_the_speed_again(tmp_path: Path) -> None:
    speed, _ = find(settings_of(tmp_path))
    assert read_speed(settings_of(tmp_path, auto_budget_s=1), SPEC) == speed


def test_a_deleted_or_unreadable_speed_is_measured_again(
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
