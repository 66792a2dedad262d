"""Keeping one worker alive: start, wait for its death, and again, ever more slowly if in vain."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from upscaled.logs import event
from upscaled.pool.messages import Ready
from upscaled.pool.worker_process import WorkerDied, WorkerProcess
from upscaled.process.child import SpawnFailed, WorkerUnusable
from upscaled.process.supervision import Limits

HOPELESS_STARTS = 3
"""After so many failed starts in a row requests are refused instead of kept waiting."""

_log = logging.getLogger(__name__)


class Crew(Protocol):
    """Those a worker works for."""

    def join(self, number: int, worker: WorkerProcess, ready: Ready) -> None:
        """It is ready for its first job; `number` is its keeper's."""

    def leave(self, worker: WorkerProcess) -> None:
        """It is dead (`gone` is set), or about to be ended."""

    def note_failed_start(self) -> None:
        """None came."""


class Keeper:
    """The keeper of one worker, and after its death of the next.

    `trouble` is why the last start failed; empty once one succeeded. `is_unusable`: the worker
    said so itself.
    """

    def __init__(
        self,
        number: int,
        start: Callable[[], Awaitable[tuple[WorkerProcess, Ready]]],
        limits: Limits,
        crew: Crew,
    ) -> None:
        self.number = number
        self.trouble = ""
        self.is_unusable = False
        self._start = start
        self._limits = limits
        self._crew = crew
        self._failures = 0
        self._start_at = 0.0  # of the start under way, or of the next one
        self._start_s = 0.0  # the last start, from its begin to its end, whatever came of it

    def ready_in_s(self) -> float:
        """Seconds until a worker is ready, if it takes as long to start as the last one did."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._start_at + self._start_s - now)

    @property
    def is_hopeless(self) -> bool:
        """Whether the next start will, in all likelihood, fail like those before."""
        return bool(self.trouble) and self._failures >= HOPELESS_STARTS

    async def keep(self) -> None:
        """Have a worker, whatever happens to it; cancelled, end it."""
        now = asyncio.get_running_loop().time
        while True:
            self._start_at = now()
            try:
                worker, ready = await self._start()
            except (WorkerUnusable, WorkerDied, SpawnFailed) as error:
                self._start_s = now() - self._start_at
                self._note_failure(error)
            else:
                self._start_s = now() - self._start_at
                await self._live_through(worker, ready)
            await asyncio.sleep(self._limits.restart_after_s(self._failures))

    async def _live_through(self, worker: WorkerProcess, ready: Ready) -> None:
        now = asyncio.get_running_loop().time
        born_at = now()
        self.trouble = ""
        self.is_unusable = False
        self._tell_ready(worker, ready)
        try:
            self._crew.join(self.number, worker, ready)
            await worker.gone.wait()
            told = event("worker_died", worker=self.number, pid=worker.pid)
            _log.warning("%s", worker.end_text, extra=told)
        finally:
            self._crew.leave(worker)
            await worker.end()
        is_steady = worker.answered or now() - born_at > self._limits.steady_s
        self._failures = 0 if is_steady else self._failures + 1

    def _tell_ready(self, worker: WorkerProcess, ready: Ready) -> None:
        models = {f"model_x{scale}": model for scale, model in ready.models.items()}
        engines = {f"engine_x{scale}": label for scale, label in ready.labels.items()}
        told = event("worker_ready", worker=self.number, pid=worker.pid, **models, **engines)
        _log.info("worker %d is ready on %s", self.number, ready.device, extra=told)

    def _note_failure(self, error: WorkerUnusable | WorkerDied | SpawnFailed) -> None:
        told = event("worker_cannot_start", worker=self.number)
        _log.error("worker %d cannot start: %s", self.number, error, extra=told)
        self.trouble = str(error)
        self._failures += 1
        self.is_unusable = isinstance(error, WorkerUnusable)
        if self.is_unusable:  # it will say the same again
            self._failures = max(self._failures, HOPELESS_STARTS)
        now = asyncio.get_running_loop().time()
        self._start_at = now + self._limits.restart_after_s(self._failures)
        self._crew.note_failed_start()
