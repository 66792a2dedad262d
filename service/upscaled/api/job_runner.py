"""Run the jobs of all front ends of one database while this one's workers have room.

Requests that a client waits for go first: a job is claimed only while a slot is free and nothing is
in the request queue. A front end that stops puts its jobs back, and one that dies loses its leases
(see `upscaled.state.jobs`): either way another one, or the next start, goes on with them.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from upscaled.api.billing import CAPTURE_RETRIES_AFTER_S
from upscaled.api.cancellation import run_to_end
from upscaled.api.memory import MemoryBudget, Share
from upscaled.api.source import build_request, fetch_source, read_checked_header
from upscaled.api.telemetry.metrics import CreditEvent, Metrics
from upscaled.config import Settings
from upscaled.errors import InternalError, RateLimitExceeded, ServiceError
from upscaled.fetch.client import FetchClient
from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.state import DatabaseFailed, PaidResult, State
from upscaled.state.jobs import RENEW_EVERY_S, ClaimedJob, Job

POLL_EVERY_S: Final = 2.0
"""How often the database is searched for jobs of other front ends, and for those left by dead ones;
a job submitted here is begun at once."""
RETRY_AFTER_S: Final = 5.0
"""Wait before a job is tried again that failed for want of memory, a queue's place or a disk."""

_logger: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tiles:
    """The progress of one job here; `total` is None until known."""

    done: int = 0
    total: int | None = None

    def note(self, done: int, total: int) -> None:
        self.done, self.total = done, total


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
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._state = state
        self._metrics = metrics
        self._fetcher = fetcher
        self._budget = budget
        self._jobs = state.jobs
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tiles: dict[str, _Tiles] = {}
        self._wake = asyncio.Event()
        self._has_failed = False

    def wake(self) -> None:
        """Look for jobs now: one was submitted here."""
        self._wake.set()

    def stop(self, job_id: str) -> None:
        """Stop the work on a job that was cancelled, if it is done here."""
        if task := self._running.get(job_id):
            task.cancel()

    def tiles_of(self, job: Job) -> tuple[int, int | None]:
        """Return a job's tiles done and in all: the newest where it runs here."""
        tiles = None if job.is_ended else self._tiles.get(job.id)
        return (job.tiles_done, job.tiles_total) if tiles is None else (tiles.done, tiles.total)

    async def run_forever(self) -> None:
        """Claim and run jobs until cancelled; those under way are put back then."""
        try:
            while True:
                self._wake.clear()
                while self._has_room() and (claimed := await self._claim()):
                    self._start(claimed)
                try:
                    async with asyncio.timeout(POLL_EVERY_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _has_room(self) -> bool:
        stats = self._executor.stats()
        is_free = stats.waiting == 0 and stats.running < stats.running_most
        return is_free and len(self._running) < stats.running_most

    async def _claim(self) -> ClaimedJob | None:
        try:
            claimed = await run_to_end(asyncio.to_thread(self._jobs.claim), self._put_back)
        except DatabaseFailed as error:
            if not self._has_failed:
                fields = event("job_claim_failed")
                _logger.warning("no job can be claimed: %s", error, extra=fields)
            self._has_failed = True
            return None
        self._has_failed = False
        return claimed

    async def _put_back(self, claimed: ClaimedJob | None) -> None:
        if claimed is not None:
            await asyncio.to_thread(self._jobs.put_back, claimed)

    def _start(self, claimed: ClaimedJob) -> None:
        task = asyncio.create_task(self._run(claimed))
        self._running[claimed.job.id] = task
        task.add_done_callback(lambda _: self._forget(claimed.job.id))

    def _forget(self, job_id: str) -> None:
        del self._running[job_id]
        self._tiles.pop(job_id, None)
        self._wake.set()

    async def _run(self, claimed: ClaimedJob) -> None:
        """Run one job to its end, or put it back."""
        tiles = self._tiles[claimed.job.id] = _Tiles()
        fields = event("job_failed", job_id=claimed.job.id, attempt=claimed.job.attempts)
        try:
            await self._run_under_lease(claimed, tiles)
        except asyncio.CancelledError:
            await run_to_end(self._put_back(claimed))
            raise
        except DatabaseFailed as error:
            # Its lease runs out, and another attempt begins.
            _logger.warning("the end of a job could not be recorded: %s", error, extra=fields)
        except RateLimitExceeded:
            await asyncio.sleep(RETRY_AFTER_S)
            await run_to_end(self._put_back(claimed))
        except ServiceError as error:
            if isinstance(error, InternalError):
                _logger.error("a job failed: %s", error, extra=fields)
            await self._fail(claimed, error)
        except Exception as error:
            _logger.exception("a job failed: %s", error, extra=fields)
            await self._fail(claimed, InternalError())

    async def _run_under_lease(self, claimed: ClaimedJob, tiles: _Tiles) -> None:
        """Work on a job while its lease is renewed; stop where it is no longer this process's."""
        work = asyncio.create_task(self._work(claimed, tiles))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=RENEW_EVERY_S)
                if not work.done() and not await self._renew(claimed, tiles):
                    return
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _renew(self, claimed: ClaimedJob, tiles: _Tiles) -> bool:
        try:
            return await run_to_end(
                asyncio.to_thread(self._jobs.renew, claimed, tiles.done, tiles.total)
            )
        except DatabaseFailed:  # `finish` decides whose it is
            return True

    async def _work(self, claimed: ClaimedJob, tiles: _Tiles) -> None:
        """Upscale a job's image, store the result, and end the job."""
        job = claimed.job
        with self._budget.share(job.key_id) as share:
            source = await self._read_source(job, share)
            header = await read_checked_header(source, job.order.scale, self._settings)
            request = build_request(
                job.id,
                header,
                self._settings,
                key_id=job.key_id,
                scale=job.order.scale,
                model=job.order.model,
                on_tile=tiles.note,
            )
            result = await self._executor.upscale(source, request)
        results = self._state.job_results
        file_name = await run_to_end(results.store(result.data, result.media_type), results.delete)
        paid = PaidResult(file_name, result.media_type)
        if await self._try_often(partial(self._jobs.finish, claimed, paid)):
            fields = event("job_done", job_id=job.id, model=result.model)
            await self._note_end(job, "captured", fields)
        else:
            await run_to_end(results.delete(file_name))

    async def _read_source(self, job: Job, share: Share) -> bytes:
        if job.order.source_name is None:
            async with share.arriving():
                return await fetch_source(
                    job.order.image_url or "",
                    share,
                    self._fetcher,
                    self._state.result_stores,
                    self._settings,
                )
        read = partial(self._state.job_sources.read, job.order.source_name)
        source = await asyncio.to_thread(read)
        share.take(len(source))
        return source

    async def _fail(self, claimed: ClaimedJob, error: ServiceError) -> None:
        if await self._try_often(partial(self._jobs.fail, claimed, error)):
            fields = event("job_failed", job_id=claimed.job.id, error_code=error.error_code)
            await self._note_end(claimed.job, "released", fields)

    async def _note_end(self, job: Job, credit: CreditEvent, fields: dict[str, object]) -> None:
        if job.order.source_name is not None:
            await asyncio.to_thread(self._state.job_sources.delete, job.order.source_name)
        _logger.info("a job ended", extra=fields)
        if self._settings.metering:
            self._metrics.note_credit(credit)

    async def _try_often(self, step: Callable[[], bool]) -> bool:
        """Run a step that ends a job, again where the connection to the database was lost.

        Raises:
            DatabaseFailed: at the last try; it may have been done or not.
        """
        for wait_s in CAPTURE_RETRIES_AFTER_S:
            try:
                return await run_to_end(asyncio.to_thread(step))
            except DatabaseFailed as error:
                if not error.is_connection_lost:
                    raise
                await asyncio.sleep(wait_s)
        return await run_to_end(asyncio.to_thread(step))
