"""Measure in a worker's idle time what its start left unsettled, and adopt what is faster.

This happens between requests, in a thread of its own that computes behind all others.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from upscaled.upscale.core import Core
from upscaled.upscale.engines import is_tuned, open_autotuner
from upscaled.worker.connection import JobQueue
from upscaled_models.autotune.load import read_load
from upscaled_models.autotune.retuner import Retuner

IDLE_S: Final = 60.0
"""A worker is idle after so long without a job: the machine's load averages have then forgotten its
last one."""

LOOK_EVERY_S: Final = 5.0
"""How often a worker looks whether it is idle."""


@dataclass(slots=True)
class IdleTuning:
    """Tunes all models that are in memory, one after the other, after `idle_s` without a job."""

    upscaler: Core
    jobs: JobQueue
    idle_s: float = IDLE_S
    retuners: dict[str, Retuner] = field(default_factory=dict)

    def start(self, begin: Callable[[], None], look_every_s: float = LOOK_EVERY_S) -> None:
        """Tune whenever the worker is idle, in a thread, for as long as the process lives.

        Args:
            begin: called first in the thread, to lower its priority.
            look_every_s: how often the thread looks whether the worker is idle.
        """
        if not is_tuned(self.upscaler.settings):
            return

        def tune_when_idle() -> None:
            begin()
            while True:
                time.sleep(look_every_s)
                self.tune()

        threading.Thread(target=tune_when_idle, name="retuning", daemon=True).start()

    def tune(self) -> None:
        """Measure while this process and the machine are idle and something is unsettled."""
        if self.jobs.idle_s < self.idle_s:
            return
        for name in self.upscaler.models.loaded():
            retuner = self._retuner(name)
            if not retuner.is_done and read_load().is_idle:
                self._measure(name, retuner)

    def _measure(self, name: str, retuner: Retuner) -> None:
        while not retuner.is_done:
            adopted = retuner.slice(self._is_idle)
            if adopted is not None:
                self.upscaler.models.adopt(name, adopted.engine)
            if not self._is_idle():
                retuner.interrupt()
                return
            if not retuner.is_measuring:
                return

    def _retuner(self, name: str) -> Retuner:
        if name not in self.retuners:
            settings = self.upscaler.settings
            with self.upscaler.models.use(name) as engine:
                self.retuners[name] = Retuner(partial(open_autotuner, settings, name), engine)
        return self.retuners[name]

    def _is_idle(self) -> bool:
        return self.jobs.idle_s >= self.idle_s
