"""A worker's idle minutes: measure what a start left unsettled, and adopt what is faster.

Between requests, in a thread of its own that computes behind all others.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from upscaled.upscale.engines import is_tuned, open_autotuner
from upscaled.upscale.upscaler import Upscaler
from upscaled.worker.connection import Inbox
from upscaled_models.autotune.load import read_load
from upscaled_models.autotune.retuner import Retuner

IDLE_S: Final = 60.0
"""Without a job for so long a worker is idle; the averages of load have forgotten its last one."""

LOOK_EVERY_S: Final = 5.0


@dataclass(slots=True)
class IdleMinutes:
    """The measuring of all models that are in memory, one after the other.

    idle_s: after how long without a job it begins.
    """

    upscaler: Upscaler
    inbox: Inbox
    idle_s: float = IDLE_S
    retuners: dict[str, Retuner] = field(default_factory=dict)

    def start(self, begin: Callable[[], None], look_every_s: float = LOOK_EVERY_S) -> None:
        """Look from time to time, in a thread, for as long as the process lives.

        Args:
            begin: called first in the thread, to lower its priority.
        """
        if not is_tuned(self.upscaler.settings):
            return

        def look_for_ever() -> None:
            begin()
            while True:
                time.sleep(look_every_s)
                self.use()

        threading.Thread(target=look_for_ever, name="retuning", daemon=True).start()

    def use(self) -> None:
        """Measure for as long as this process and the machine are idle and something is open."""
        if self.inbox.idle_s < self.idle_s:
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
        return self.inbox.idle_s >= self.idle_s
