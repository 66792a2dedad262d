"""Count what one worker process has done since its start, for the front end to read."""

import threading
import time
from typing import TYPE_CHECKING

from upscaled.pool.stats import ModelStats, WorkerStats
from upscaled.process.confinement import measure_resident
from upscaled_models.registry import split_strength

if TYPE_CHECKING:  # the scheduler loads numpy, which starts threads
    from upscaled.decoder.pool import Decoder
    from upscaled.upscale.scheduler import BatchDone


class Counters:
    """Counters of a worker since its start: counted by any thread, read by the listener.

    decoder: the decoder whose deaths are reported, once it is open.
    """

    def __init__(self) -> None:
        self.decoder: Decoder | None = None
        self._lock = threading.Lock()
        self._models: dict[str, ModelStats] = {}

    def count_batch(self, done: "BatchDone") -> None:
        """Count one batch on the device, at its cost in trunk pixels."""
        spec = done.engine.info.spec
        model, _ = split_strength(spec.name)
        batch = ModelStats(
            batches=1,
            windows=done.windows,
            slots=done.max_windows,
            trunk_px=done.windows * spec.trunk_pixels(done.width_px, done.height_px),
            device_s=done.seconds,
        )
        with self._lock:
            self._models[model] = self._models.get(model, ModelStats()) + batch

    def read(self) -> WorkerStats:
        """Return what was counted so far, with this process's own processor time and memory."""
        with self._lock:
            models = dict(self._models)
        return WorkerStats(
            models=models,
            decoder_deaths=self.decoder.deaths if self.decoder else 0,
            cpu_s=time.process_time(),
            resident_bytes=measure_resident() or 0,
        )
