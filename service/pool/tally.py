"""A worker's own books: counted by any of its threads, read by the one that tells the front end."""

import os
import threading
import time
from pathlib import Path

from service.pool.figures import ModelFigures, WorkerFigures

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Tally:
    """All that a worker has done since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, ModelFigures] = {}
        self._decoder_deaths = 0

    def add(self, model: str, figures: ModelFigures) -> None:
        """Count one more batch of a model."""
        with self._lock:
            self._models[model] = self._models.get(model, ModelFigures()) + figures

    def note_decoder_death(self) -> None:
        with self._lock:
            self._decoder_deaths += 1

    def read(self) -> WorkerFigures:
        with self._lock:
            models, decoder_deaths = dict(self._models), self._decoder_deaths
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
