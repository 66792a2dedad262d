"""Measure the seconds of a pixel through a model on this machine, and store them.

    tuning/speed-realesrgan-x4plus-auto-5f0c….json      the key it holds for, and the speed

Which model an image goes to must not change by itself: a speed is measured when there is none for
the machine, the model and the settings, and again only when `forget_speed` was called.
"""

import time
from typing import Final

import numpy as np
from pydantic import BaseModel, Field

from upscaled.config import Settings
from upscaled.upscale.engines import choose_device, find_choice
from upscaled.upscale.scheduler import Scheduler
from upscaled_models.autotune.cache import CacheFile, CacheRecord, Key, lock_folder
from upscaled_models.backends.base import Engine, Window, round_up
from upscaled_models.processor import describe_processor
from upscaled_models.registry import ModelSpec

FORMAT: Final = 3
"""Version of the measurement: where it changes, every machine measures again."""

CORE_PX: Final = 64
SPEED_RUNS: Final = 2
"""Runs of each window, of which the fastest counts: the first one also pays for what happens once
for a shape, such as the search for kernels on a GPU."""

DEEP_PX: Final = 64
"""Side of the window that is run in float32: slow models take half a second for it."""


class Speed(BaseModel, frozen=True, extra="forbid"):
    """The cost of a window.

    s_per_px: device seconds for one of its pixels, halo included. deep_s_per_px: the same in
    float32, as windows of 16 bits a channel take it. window_px: its longest side. shape_step_px,
    computes_bands: as of `EngineInfo`.
    """

    s_per_px: float = Field(gt=0, allow_inf_nan=False)
    deep_s_per_px: float = Field(gt=0, allow_inf_nan=False)
    window_px: int = Field(ge=1)
    shape_step_px: int = Field(ge=1)
    computes_bands: bool = False


class SpeedRecord(CacheRecord):
    speed: Speed


def read_speed(settings: Settings, spec: ModelSpec) -> Speed | None:
    """Return the stored speed of a model; None without one for this machine and these settings."""
    record = _file(settings, spec).read()
    return None if record is None else record.speed


def find_speed(settings: Settings, spec: ModelSpec, engine: Engine, scheduler: Scheduler) -> Speed:
    """Return the stored speed of a model; without one, measure its engine now and store that.

    Workers that start together measure once: the others wait and read.

    Raises:
        Exception: as `Engine.start` and `Started.finish`.
    """
    file = _file(settings, spec)
    with lock_folder(file.path.parent):
        record = file.read()
        if record is not None:
            return record.speed
        speed = _measure_speed(engine, scheduler, settings)
        file.write(speed=speed)
    return speed


def forget_speed(settings: Settings, spec: ModelSpec) -> None:
    """Delete the stored speed, so that the next start measures it.

    Raises:
        OSError: the file cannot be deleted.
    """
    _file(settings, spec).path.unlink(missing_ok=True)


def warm_up(engine: Engine, scheduler: Scheduler) -> float:
    """Run a small window twice, and return the second run's device seconds for a pixel of it.

    Raises:
        Exception: as `Engine.start` and `Started.finish`.
    """
    window = _make_window(engine)
    _run(engine, scheduler, window)
    return _run(engine, scheduler, window)


def _measure_speed(engine: Engine, scheduler: Scheduler, settings: Settings) -> Speed:
    """Measure a pixel of a window in the engine's precision and in float32."""
    device = choose_device(settings)
    threads = device.threads if device.is_cpu else 0
    window = _make_window(engine)
    deep_px = min(window.shape[0], round_up(DEEP_PX, engine.info.spec.multiple_px))
    deep = np.zeros((deep_px, deep_px, 3), np.uint16)
    choice = find_choice(settings, engine.info.model)
    if choice is not None:
        s_per_px = choice.ns_per_px * 1e-9
    else:
        s_per_px = _run_fastest(engine, scheduler, window, threads)
    return Speed(
        s_per_px=s_per_px,
        deep_s_per_px=_run_fastest(engine, scheduler, deep, threads),
        window_px=engine.info.window_px,
        shape_step_px=engine.info.shape_step_px,
        computes_bands=engine.info.computes_bands,
    )


def _make_window(engine: Engine) -> Window:
    side_px = round_up(2 * engine.info.spec.halo_px + CORE_PX, engine.info.spec.multiple_px)
    side_px = min(engine.info.window_px, side_px)
    return np.zeros((side_px, side_px, 3), np.uint8)


def _run_fastest(engine: Engine, scheduler: Scheduler, window: Window, threads: int) -> float:
    return min(_run(engine, scheduler, window, threads) for _ in range(SPEED_RUNS))


def _run(engine: Engine, scheduler: Scheduler, window: Window, threads: int = 0) -> float:
    """Return the device seconds for a pixel.

    threads: where a processor computes, by its time on so many threads, if that is less than the
    clock's: a machine busy with other work makes the latter many times as long.
    """
    before_s = time.process_time()
    with scheduler.open_stream(engine) as stream:
        for _result in stream.run([window]):
            pass
        seconds = stream.device_s
    if threads:
        seconds = min(seconds, (time.process_time() - before_s) / threads)
    return seconds / float(window.shape[0] * window.shape[1])


def _file(settings: Settings, spec: ModelSpec) -> CacheFile[SpeedRecord]:
    """Name the file of a speed by all that it depends on."""
    device = choose_device(settings)
    key: Key = {
        "format": FORMAT,
        "model": spec.weights_key,
        "sha256": spec.hashes,
        "precision": settings.precision,
        "tuning": str(settings.tuning),
        "processor": describe_processor(),
        "device": device.describe(),
        "threads": device.threads,
        "workers": settings.workers,
        "window_px": settings.tile_window_px,
        "halo_px": spec.halo_px,
    }
    name = f"speed-{spec.weights_key}-{settings.precision}"
    return CacheFile.of(settings.data_dir / "tuning", name, key, SpeedRecord)
