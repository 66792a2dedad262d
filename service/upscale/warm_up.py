"""A first run through an engine: its figures, and the proof that it works."""

import time
from typing import Final

import numpy as np

from service.engine.engine import Engine
from service.upscale.scheduler import Scheduler

CORE_PX: Final = 64


def warm_up(engine: Engine, scheduler: Scheduler) -> float:
    """Run a small window twice: seconds per input pixel of the second.

    Raises:
        whatever the engine does.
    """
    rest_px = -(2 * engine.halo_px + CORE_PX) % engine.multiple_px
    side_px = min(engine.window_px, 2 * engine.halo_px + CORE_PX + rest_px)
    window = np.zeros((side_px, side_px, 3), np.uint8)
    times_s = []
    for _ in range(2):
        started = time.perf_counter()
        with scheduler.open_lane(engine) as lane:
            for _result in lane.run([window]):
                pass
        times_s.append(time.perf_counter() - started)
    return times_s[-1] / side_px**2
