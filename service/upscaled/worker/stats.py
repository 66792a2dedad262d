"""Count what one worker process has done since its start, for the front end to read."""

import threading
import time
from typing import TYPE_CHECKING

from upscaled.pool.stats import ModelStats, WorkerStats
from upscaled.process.confinement import measure_resident

if TYPE_CHECKING:  # the scheduler loads numpy, which starts threads
    from upscaled.upscale.scheduler import BatchDone


class Counters:
    """All that a worker has done since its start: counted by any thread, read by the listener."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, ModelStats] = {}
        self._decoder_deaths = 0

    def count_batch(self, done: "BatchDone") -> None:
        """Count one batch on the device, at its cost in trunk pixels."""
        spec = done.engine.info.spec
        batch = ModelStats(
            batches=1,
            windows=done.windows,
            slots=done.places,
            trunk_px=done.windows * spec.trunk_pixels(done.width_px, done.height_px),
            device_s=done.seconds,
        )
        with self._lock:
            self._models[spec.name] = self._models.get(spec.name, ModelStats()) + batch

    def count_decoder_death(self) -> None:
        """Count one decoder process that died while it had a file."""
        with self._lock:
            self._decoder_deaths += 1

    def read(self) -> WorkerStats:
        """Return what was counted so far, with this process's own processor time and memory."""
        with self._lock:
            models, decoder_deaths = dict(self._models), self._decoder_deaths
        return WorkerStats(
            models=models,
            decoder_deaths=decoder_deaths,
            cpu_s=time.process_time(),
            resident_bytes=measure_resident() or 0,
        )
