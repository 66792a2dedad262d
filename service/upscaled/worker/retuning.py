"""Warm models up, and measure what their start left unsettled, in a worker's idle time.

This happens between requests, in a thread of its own that computes behind all others.
"""

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from upscaled.process.confinement import lower_priority
from upscaled.upscale.core import Core
from upscaled.upscale.engines import is_tuned, open_autotuner
from upscaled.worker.jobs import JobQueue
from upscaled_models.autotune.retuner import Retuner
from upscaled_models.autotune.timing import read_load
from upscaled_models.registry import split_strength

IDLE_S: Final = 60.0
"""A worker is idle after so long without a job: then the machine's load averages no longer show its
last one."""

LOOK_EVERY_S: Final = 5.0
"""Interval at which a worker checks whether it is idle."""


@dataclass(slots=True)
class IdleTuning:
    """Tunes all models that are in memory, one after the other, after `idle_s` without a job."""

    core: Core
    jobs: JobQueue
    idle_s: float = IDLE_S
    retuners: dict[str, Retuner] = field(default_factory=dict)
    is_warm: bool = False

    def start(self, niceness: int) -> None:
        """Tune whenever the worker is idle, in a thread, until the process ends."""
        if is_tuned(self.core.settings):
            threading.Thread(
                target=self._tune_when_idle, args=(niceness,), name="retuning", daemon=True
            ).start()

    def warm_up(self) -> None:
        """Run the models in memory once, as soon as the worker is idle after its start.

        A start runs none whose speed is stored, and the graph of a large one is compiled when it
        first runs. An image that comes meanwhile waits for one window at most.
        """
        if not self.is_warm and self.jobs.idle_s >= LOOK_EVERY_S:
            self.core.check_engines()
            self.is_warm = True

    def tune(self) -> None:
        """Measure while this process and the machine are idle and something is unsettled."""
        if not self._is_idle():
            return
        for name in self.core.models.loaded():
            if split_strength(name)[1] is not None:
                continue  # of one request: it runs as it was opened, and may be unloaded soon
            retuner = self._retuner(name)
            if not retuner.is_done and read_load().is_idle:
                self._measure(name, retuner)

    def _tune_when_idle(self, niceness: int) -> None:
        lower_priority(niceness)
        while True:
            time.sleep(LOOK_EVERY_S)
            self.warm_up()
            self.tune()

    def _measure(self, name: str, retuner: Retuner) -> None:
        while not retuner.is_done:
            adopted = retuner.slice(self._is_idle)
            if adopted is not None:
                self.core.models.adopt(name, adopted.engine)
            if not self._is_idle():
                retuner.interrupt()
                return
            if not retuner.is_measuring:
                return

    def _retuner(self, name: str) -> Retuner:
        if name not in self.retuners:
            with self.core.models.use(name) as engine:
                self.retuners[name] = Retuner(
                    partial(open_autotuner, self.core.settings, name), engine
                )
        return self.retuners[name]

    def _is_idle(self) -> bool:
        return self.jobs.idle_s >= self.idle_s
