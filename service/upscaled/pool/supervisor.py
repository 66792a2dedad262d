"""Keep one worker running: start it, wait for its death, and restart it with backoff."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from upscaled.config import Settings
from upscaled.errors import InternalError, RateLimitExceeded, ServiceError
from upscaled.logs import event
from upscaled.pool.cost import estimate_wait_s
from upscaled.pool.executor import WorkerState, WorkerStats
from upscaled.pool.worker_process import WorkerDied, WorkerProcess
from upscaled.process.child import ChildUnusable, SpawnFailed
from upscaled.process.supervision import Limits

HOPELESS_STARTS: Final = 3
"""Failed starts in a row after which requests are refused instead of kept waiting."""

_log = logging.getLogger(__name__)


class Pool(Protocol):
    """The pool to which a supervisor's worker belongs."""

    def add_worker(self, worker: WorkerProcess) -> None:
        """Give jobs to a worker, which is ready."""

    def remove_worker(self, worker: WorkerProcess) -> None:
        """Give no more jobs to a worker: it is dead (`gone` is set), or about to be ended."""

    def note_failed_start(self) -> None:
        """Answer requests anew: a start has failed, and each supervisor says what comes of it."""

    def may_do_without(self, supervisor: "Supervisor") -> bool:
        """Return whether workers of another device are ready."""


class Supervisor:
    """Supervisor of one worker, and after its death of the next.

    worker: the one that is ready. restarts: workers that died by themselves and were replaced.
    failed_starts: starts after which no worker was ready. last_error: why the last start failed;
    empty once one succeeded. is_unusable: the worker itself reported that error, and will report it
    again. device: the one of the settings. shown_device: its name as the last ready worker gave it.
    is_out: the device failed repeatedly while others work, and is not used for `Limits.out_s`.
    """

    def __init__(
        self, number: int, settings: Settings, command: Sequence[str], limits: Limits, pool: Pool
    ) -> None:
        self.number = number
        self.device = settings.device
        self.shown_device = settings.device
        self.is_out = False
        self.worker: WorkerProcess | None = None
        self.restarts = 0
        self.failed_starts = 0
        self.last_error = ""
        self.is_unusable = False
        self._settings = settings
        self._command = command
        self._limits = limits
        self._pool = pool
        self._done_before = WorkerStats()
        self._failures = 0  # in a row
        self._deaths = 0  # of workers, since an image was last answered
        self._recalled = asyncio.Event()
        self._start_at = 0.0  # when the current start began, or the next one will
        self._start_s = 0.0  # how long the last start took, successful or not

    def ready_in_s(self) -> float:
        """Return the seconds until a worker is ready, if it starts as fast as the last one did."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._start_at + self._start_s - now)

    @property
    def has_failed_repeatedly(self) -> bool:
        """Return whether the next start will, in all likelihood, fail like those before."""
        return bool(self.last_error) and self._failures >= HOPELESS_STARTS

    def done(self) -> WorkerStats:
        """Return what the worker and those before it have done, a second old at most."""
        return self._done_before + self.worker.stats if self.worker else self._done_before

    def state(self, in_flight: int) -> WorkerState:
        return WorkerState(
            number=self.number,
            device=self.shown_device,
            is_ready=self.worker is not None,
            is_out=self.is_out,
            in_flight=in_flight,
            device_s=sum(model.device_s for model in self.done().models.values()),
        )

    def start(self) -> asyncio.Task[None]:
        """Start `run` as a task, and log an exception that ends it."""
        supervising = asyncio.create_task(self.run())
        supervising.add_done_callback(_log_crash)
        return supervising

    async def run(self) -> None:
        """Run the worker and restart it with exponential backoff until cancelled; then end it."""
        now = asyncio.get_running_loop().time
        while True:
            self._start_at = now()
            try:
                worker = await WorkerProcess.start(self._command, self._settings, self._limits)
            except (ChildUnusable, WorkerDied, SpawnFailed) as error:
                self._start_s = now() - self._start_at
                self._note_failure(error)
            else:
                self._start_s = now() - self._start_at
                await self._watch(worker)
            await self._wait_before_start()

    def recall(self) -> None:
        """Start a worker at once although its device is out, because none of another is ready."""
        self._recalled.set()

    async def _wait_before_start(self) -> None:
        """Wait for the backoff, and longer for a device that fails repeatedly while others work.

        The other devices upscale the images that such a device failed, so each further attempt to
        use it costs them one retry at most.
        """
        await asyncio.sleep(self._limits.restart_after_s(self._failures))
        is_failing = max(self._failures, self._deaths) >= HOPELESS_STARTS
        if not is_failing or not self._pool.may_do_without(self):
            return
        fields = event("device_out", worker=self.number, device=self.device)
        text = "%s failed repeatedly: worker %d is not used, and is started again in %.0f s"
        _log.error(text, self.device, self.number, self._limits.out_s, extra=fields)
        self.is_out = True
        self._recalled.clear()
        self._start_at = asyncio.get_running_loop().time() + self._limits.out_s
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.out_s):
                await self._recalled.wait()
        self.is_out = False

    async def _watch(self, worker: WorkerProcess) -> None:
        """Register the worker with the pool until its process ends."""
        now = asyncio.get_running_loop().time
        started_at = now()
        self.last_error = ""
        self.is_unusable = False
        self._log_ready(worker)
        try:
            self.worker = worker
            self.shown_device = worker.ready.device
            self._pool.add_worker(worker)
            await worker.gone.wait()
            fields = event("worker_died", worker=self.number, pid=worker.pid)
            _log.warning("worker %d died: %s", self.number, worker.end_text, extra=fields)
        finally:
            self._done_before = self.done()
            self.restarts += worker.gone.is_set()
            self.worker = None
            self._pool.remove_worker(worker)
            await worker.end()
        self._deaths = 0 if worker.answered else self._deaths + 1
        if worker.is_faulty:
            self._deaths = HOPELESS_STARTS
        is_steady = worker.answered or now() - started_at > self._limits.steady_s
        self._failures = 0 if is_steady else self._failures + 1

    def _log_ready(self, worker: WorkerProcess) -> None:
        ready = worker.ready
        models = {f"model_x{scale}": model for scale, model in ready.models.items()}
        engines = {f"engine_x{scale}": label for scale, label in ready.labels.items()}
        fields = event(
            "worker_ready",
            worker=self.number,
            pid=worker.pid,
            device=ready.device,
            **models,
            **engines,
        )
        _log.info("worker %d is ready on %s", self.number, ready.device, extra=fields)

    def _note_failure(self, error: ChildUnusable | WorkerDied | SpawnFailed) -> None:
        fields = event("worker_cannot_start", worker=self.number)
        _log.error("worker %d cannot start: %s", self.number, error, extra=fields)
        self.last_error = str(error)
        self.failed_starts += 1
        self._failures += 1
        self.is_unusable = isinstance(error, ChildUnusable)
        if self.is_unusable:
            self._failures = max(self._failures, HOPELESS_STARTS)
        now = asyncio.get_running_loop().time()
        self._start_at = now + self._limits.restart_after_s(self._failures)
        self._pool.note_failed_start()


def starting_s(supervisors: Sequence[Supervisor]) -> float:
    """Return the seconds until a worker is ready, if the next start goes well; 0 if one is."""
    if any(each.worker for each in supervisors):
        return 0
    return min(each.ready_in_s() for each in supervisors)


def refuse_without_workers(supervisors: Sequence[Supervisor]) -> ServiceError | None:
    """Return the answer to every request while the starts of all workers fail, else None.

    Starts that fail are tried again, so the answer is to come back when the next one should be
    ready. It is an error of the service only where every worker reports itself that it cannot work,
    a model or a device being gone: then no wait would be truthful.
    """
    if any(each.worker or not each.has_failed_repeatedly for each in supervisors):
        return None
    error = supervisors[0].last_error
    if all(each.is_unusable for each in supervisors):
        return InternalError(detail=error)
    wait_s = estimate_wait_s(0, 1, starting_s(supervisors))
    return RateLimitExceeded(wait_s, reason="starting", detail=f"no worker: {error}")


def _log_crash(supervising: "asyncio.Task[None]") -> None:
    if not supervising.cancelled() and (error := supervising.exception()):
        fields = event("supervisor_died")
        _log.critical("a supervisor crashed: its worker runs no more", exc_info=error, extra=fields)
