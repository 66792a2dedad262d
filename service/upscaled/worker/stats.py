"""Count what one worker process has done since its start, for the front end to read."""

import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upscaled.pool.stats import ModelFigures, WorkerFigures

if TYPE_CHECKING:  # the scheduler loads numpy, which starts threads
    from upscaled.upscale.scheduler import BatchDone, OnBatch

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class _Sums:
    """What `ModelFigures` are made of, while it grows."""

    batches: int = 0
    windows: int = 0
    places: int = 0
    trunk_px: int = 0
    device_s: float = 0


class Tally:
    """All that a worker has done since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, _Sums] = {}
        self._decoder_deaths = 0

    def note_batch(
        self, model: str, *, windows: int, places: int, trunk_px: int, device_s: float
    ) -> None:
        """Count one more batch of a model; for the meanings see `ModelFigures`."""
        with self._lock:
            sums = self._models.setdefault(model, _Sums())
            sums.batches += 1
            sums.windows += windows
            sums.places += places
            sums.trunk_px += trunk_px
            sums.device_s += device_s

    def note_decoder_death(self) -> None:
        with self._lock:
            self._decoder_deaths += 1

    def read(self) -> WorkerFigures:
        with self._lock:
            models = {name: ModelFigures(**asdict(sums)) for name, sums in self._models.items()}
            decoder_deaths = self._decoder_deaths
        return WorkerFigures(
            models=models,
            decoder_deaths=decoder_deaths,
            cpu_s=time.process_time(),
            resident_bytes=read_resident_bytes(),
        )


def read_resident_bytes() -> int:
    """This process's memory that is in RAM; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def count_batches(tally: Tally) -> "OnBatch":
    """Count every batch by its model's name, its cost in trunk pixels."""

    def count(done: "BatchDone") -> None:
        spec = done.engine.info.spec
        tally.note_batch(
            spec.name,
            windows=done.windows,
            places=done.places,
            trunk_px=done.windows * spec.trunk_pixels(done.width_px, done.height_px),
            device_s=done.seconds,
        )

    return count
