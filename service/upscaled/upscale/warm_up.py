"""First runs through an engine: its speed, and the proof that it works."""

import time
from typing import Final

import numpy as np

from upscaled.config import Settings
from upscaled.upscale.engines import choose_device, find_cost_s
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.speed import Speed
from upscaled_models.backends.base import Engine, Window, round_up

CORE_PX: Final = 64
SPEED_RUNS: Final = 2
DEEP_PX: Final = 64
"""Side of the window that is run in float32: slow models take half a second for it."""


def warm_up(engine: Engine, scheduler: Scheduler) -> float:
    """Run a small window twice: device seconds for a pixel of the window, of the second run.

    Raises:
        whatever the engine does.
    """
    window = _make_window(engine)
    _run(engine, scheduler, window)
    return _run(engine, scheduler, window)


def measure_speed(engine: Engine, scheduler: Scheduler, settings: Settings) -> Speed:
    """What a pixel of a window takes, in the engine's precision and in float32.

    Where a processor computes, it is by its time, if that is less than the clock's: a machine busy
    with other work makes the latter many times as long.

    Raises:
        whatever the engine does.
    """
    device = choose_device(settings)
    threads = device.threads if device.is_cpu else 0
    window = _make_window(engine)
    deep_px = min(window.shape[0], round_up(DEEP_PX, engine.info.spec.multiple_px))
    deep = np.zeros((deep_px, deep_px, 3), np.uint16)
    s_per_px = find_cost_s(settings, engine.info.model) or min(
        _measure(engine, scheduler, window, threads) for _ in range(SPEED_RUNS)
    )
    return Speed(
        s_per_px=s_per_px,
        deep_s_per_px=_measure(engine, scheduler, deep, threads),
        window_px=engine.info.window_px,
        shape_step_px=engine.info.shape_step_px,
    )


def _make_window(engine: Engine) -> Window:
    side_px = round_up(2 * engine.info.spec.halo_px + CORE_PX, engine.info.spec.multiple_px)
    side_px = min(engine.info.window_px, side_px)
    return np.zeros((side_px, side_px, 3), np.uint8)


def _measure(engine: Engine, scheduler: Scheduler, window: Window, threads: int) -> float:
    before_s = time.process_time()
    by_clock_s = _run(engine, scheduler, window)
    if not threads:
        return by_clock_s
    used_s = (time.process_time() - before_s) / threads
    return min(by_clock_s, used_s / float(window.shape[0] * window.shape[1]))


def _run(engine: Engine, scheduler: Scheduler, window: Window) -> float:
    """Device seconds for a pixel."""
    with scheduler.open_stream(engine) as stream:
        for _result in stream.run([window]):
            pass
        return stream.device_s / float(window.shape[0] * window.shape[1])
