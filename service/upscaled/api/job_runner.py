"""Run the jobs of all front ends of one database while this one's workers have free slots.

Requests that a client waits for go first: a job is claimed only while a slot is free and nothing is
in the request queue. A front end that stops puts its jobs back, and one that dies loses its leases
(see `upscaled.state.jobs`): either way another one, or the next start, goes on with them.
"""

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import Final

from upscaled.api.cancellation import cancel, run_to_end
from upscaled.api.job_work import JobEnds, JobImages, StoreFailed
from upscaled.api.memory import MemoryBudget
from upscaled.api.progress import Progress
from upscaled.api.readiness import AutoChoiceAgreement
from upscaled.api.telemetry.metrics import Metrics
from upscaled.config import Settings
from upscaled.errors import InternalError, RateLimitExceeded, ServiceError
from upscaled.fetch.client import FetchClient
from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.state import DatabaseFailed, State
from upscaled.state.job_rows import ClaimedJob, StoredJob
from upscaled.state.jobs import RENEW_EVERY_S

POLL_EVERY_S: Final = 2.0
"""Interval at which the database is searched for jobs of other front ends, and for those left by
dead ones; a job submitted here is begun at once."""
RETRY_AFTER_S: Final = 5.0
"""Pause after a job for which there was no memory, no place in the queue, or no working store."""
STORE_RETRY_AFTER_S: Final = 60.0
"""Before a job is tried again whose source could not be read or whose result could not be stored:
it may be that one object alone, and other jobs go first."""

_logger: Final = logging.getLogger(__name__)


class _JobProgress(Progress):
    """The progress of one job here; its lease needs no renewal once `is_ending`."""

    is_ending = False


class JobRunner:
    """Claims jobs and runs them, each as a task on the event loop."""

    def __init__(
        self,
        settings: Settings,
        executor: Executor,
        state: State,
        *,
        metrics: Metrics,
        fetcher: FetchClient,
        budget: MemoryBudget,
        agreement: AutoChoiceAgreement,
    ) -> None:
        self._agreement = agreement
        self._settings = settings
        self._executor = executor
        self._ends = JobEnds(state, metrics)
        self._images = JobImages(settings, executor, state, fetcher, budget)
        self._jobs = state.jobs
        self._running: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, _JobProgress] = {}
        self._wake = asyncio.Event()
        self._paused_until_s = 0.0
        self._last_key_id = 0
        self._has_failed = False
        self._is_closed = False

    def wake(self) -> None:
        """Look for jobs now: one was submitted here."""
        self._wake.set()

    async def note_cancelled(self, job: StoredJob) -> None:
        """Stop the work on a job that was cancelled, if it is done here, and record its end."""
        if task := self._running.get(job.id):
            task.cancel()
        await self._ends.note(job, "cancelled")

    def tiles_of(self, job: StoredJob) -> tuple[int, int | None]:
        """Return a job's tiles done and in all: the newest where it runs here."""
        progress = None if job.is_ended else self._progress.get(job.id)
        return (job.tiles_done, job.tiles_total) if progress is None else progress.step.tiles

    def remaining_s_of(self, job: StoredJob) -> float | None:
        """Return the seconds that a job's network is expected to take yet; None if not known."""
        progress = None if job.is_ended else self._progress.get(job.id)
        return None if progress is None else progress.step.remaining_s

    async def run_forever(self) -> None:
        """Claim and run jobs until `close` is called, or the call is cancelled."""
        try:
            while not self._is_closed:
                self._wake.clear()
                while self._has_room() and (claimed := await self._claim()):
                    await self._start(claimed)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_EVERY_S):
                        await self._wake.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Claim no more, and put back the jobs under way: before the workers are stopped."""
        tasks = list(self._running.values())
        if not self._is_closed:  # a second cancellation would break off what the first one began
            self._is_closed = True
            self._wake.set()
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_room(self) -> bool:
        """Return whether a job could have a slot now that no request waits for.

        Not while the others' pictures would be different: no balancer keeps jobs from this machine.
        """
        stats = self._executor.stats()
        not_in_slots = len(self._running) - self._images.at_executor
        return (
            not self._is_closed
            and time.monotonic() >= self._paused_until_s
            and self._executor.is_ready()
            and not self._agreement.trouble
            and stats.waiting == 0
            and stats.running + not_in_slots < stats.running_most
        )

    async def _claim(self) -> ClaimedJob | None:
        try:
            while ended := await run_to_end(asyncio.to_thread(self._jobs.end_unwanted)):
                for job in ended:
                    await self._ends.note(job, job.state, error_code=job.error_code)
            if self._is_closed:  # its own jobs may be back in the queue already
                return None
            claiming = asyncio.to_thread(self._jobs.claim, self._last_key_id)
            claimed = await run_to_end(claiming, self._put_back)
        except Exception as error:  # noqa: BLE001  (every failure is tried again)
            if not self._has_failed:
                fields = event("job_claim_failed")
                _logger.warning("no job can be claimed: %s", error, extra=fields)
            self._has_failed = True
            self._pause()
            return None
        self._has_failed = False
        if claimed is not None:
            self._last_key_id = claimed.job.key_id
        return claimed

    async def _start(self, claimed: ClaimedJob) -> None:
        """Run a job as a task; an older one of the same job has lost its lease."""
        job_id = claimed.job.id
        if older := self._running.get(job_id):
            await cancel(older)
        if self._is_closed:
            await self._put_back(claimed)
            return
        progress = self._progress[job_id] = _JobProgress()
        task = self._running[job_id] = asyncio.create_task(self._run(claimed, progress))
        task.add_done_callback(partial(self._forget, job_id))

    def _forget(self, job_id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(job_id) is task:
            del self._running[job_id], self._progress[job_id]
        self._wake.set()

    def _pause(self) -> None:
        """Claim nothing for a while: what failed would fail again."""
        self._paused_until_s = time.monotonic() + RETRY_AFTER_S

    async def _put_back(self, claimed: ClaimedJob | None, delay_s: float = 0.0) -> None:
        """Queue a job again; where that fails, its lease runs out."""
        if claimed is None:
            return
        try:
            await asyncio.to_thread(self._jobs.put_back, claimed, delay_s)
        except DatabaseFailed as error:
            fields = event("job_not_put_back", job_id=claimed.job.id)
            _logger.warning("a job could not be put back: %s", error, extra=fields)

    async def _run(self, claimed: ClaimedJob, progress: _JobProgress) -> None:
        """Run one job to its end, or put it back."""
        try:
            error = await self._attempt(claimed, progress)
            if isinstance(error, RateLimitExceeded):
                self._pause()
                await self._put_back(claimed)
            elif isinstance(error, StoreFailed):
                self._pause()
                await self._put_back(claimed, STORE_RETRY_AFTER_S)
            elif error is not None:
                await self._ends.fail(claimed, error)
        except asyncio.CancelledError:
            await run_to_end(self._put_back(claimed))
            raise
        except DatabaseFailed as failure:
            # Its lease runs out, and another attempt begins.
            fields = event("job_failed", job_id=claimed.job.id, attempt=claimed.job.attempts)
            _logger.warning("the end of a job could not be recorded: %s", failure, extra=fields)

    async def _attempt(self, claimed: ClaimedJob, progress: _JobProgress) -> ServiceError | None:
        """Work on a job while its lease is renewed; return why it failed.

        None: it has ended, or it is no longer this process's.

        Raises:
            DatabaseFailed: its end could not be recorded.
        """
        fields = event("job_failed", job_id=claimed.job.id, attempt=claimed.job.attempts)
        try:
            await self._work_under_lease(claimed, progress)
        except DatabaseFailed:
            raise
        except ServiceError as error:
            if isinstance(error, InternalError):
                _logger.error("a job failed: %s", error, extra=fields)
            return error
        except Exception as error:
            _logger.exception("a job failed: %s", error, extra=fields)
            return InternalError()
        return None

    async def _work_under_lease(self, claimed: ClaimedJob, progress: _JobProgress) -> None:
        work = asyncio.create_task(self._work(claimed, progress))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=RENEW_EVERY_S)
                is_needed = not work.done() and not progress.is_ending
                if is_needed and not await self._renew(claimed, progress):
                    return
            await work
        finally:
            await cancel(work)

    async def _renew(self, claimed: ClaimedJob, progress: _JobProgress) -> bool:
        renewing = asyncio.to_thread(self._jobs.renew, claimed, *progress.step.tiles)
        try:
            return await run_to_end(renewing) or progress.is_ending
        except DatabaseFailed:  # `finish` decides whose it is
            return True

    async def _work(self, claimed: ClaimedJob, progress: _JobProgress) -> None:
        """Upscale a job's image, store the result, and end the job."""
        job, begun_s = claimed.job, time.monotonic()
        image = await self._images.upscale(job, progress)
        progress.is_ending = True
        await self._ends.succeed(claimed, image, progress.step.tiles_total or 0, begun_s=begun_s)
