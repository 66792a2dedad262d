"""Upscale the image of a job: read its source, compute, store the result; and record its end."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from upscaled.api import upscale_steps
from upscaled.api.billing import try_often
from upscaled.api.cancellation import run_to_end
from upscaled.api.memory import MemoryBudget, MemoryShare
from upscaled.api.progress import Progress
from upscaled.api.telemetry.metrics import Metrics
from upscaled.config import Settings
from upscaled.errors import InternalError, ServiceError
from upscaled.fetch.client import FetchClient
from upscaled.image.types import Header
from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.state import PaidResult, State
from upscaled.state.job_rows import ClaimedJob, JobState, StoredJob
from upscaled.state.usage import MadeImage
from upscaled.upscale.result import Result

_EVENTS: Final[Mapping[JobState, str]] = {
    "succeeded": "job_done",
    "failed": "job_failed",
    "cancelled": "job_cancelled",
}

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobImage:
    """A stored result, the name it is stored under, and the size of its source.

    made: the result as it is recorded.
    """

    result: Result
    file_name: str
    source_bytes: int
    made: MadeImage


class StoreFailed(InternalError):
    """The store of sources or results does not work: no fault of the job, which waits."""


@contextmanager
def _reporting_store() -> Iterator[None]:
    try:
        yield
    except InternalError as error:
        raise StoreFailed(detail=error.detail) from error


@dataclass(slots=True)
class JobImages:
    """Upscales images of jobs by the executor; `at_executor` are those that it has not answered."""

    settings: Settings
    executor: Executor
    state: State
    fetcher: FetchClient
    budget: MemoryBudget
    at_executor: int = 0

    async def upscale(self, job: StoredJob, progress: Progress) -> JobImage:
        """Upscale a job's image and store the result.

        Raises:
            StoreFailed: the store of sources or of results does not work.
            RateLimitExceeded: there is no memory or no slot for it now.
            ServiceError: as of a request.
        """
        results = self.state.job_results
        with self.budget.share(job.key_id) as share:
            source = await self._read_source(job, share)
            header = await upscale_steps.read_checked_header(source, job.order.scale, self.settings)
            result = await self._compute(job, source, header, progress)
        with _reporting_store():
            file_name = await upscale_steps.store_result(result, results)
        return JobImage(result, file_name, len(source), _describe(header, result))

    async def _compute(
        self, job: StoredJob, source: bytes, header: Header, progress: Progress
    ) -> Result:
        request = upscale_steps.build_request(
            job.id,
            header,
            self.settings,
            key_id=job.key_id,
            scale=job.order.scale,
            model=job.order.model,
            choice=job.order.choice,
            source_bytes=len(source),
        )
        request = replace(request, on_tile=progress.note_tile)
        request = upscale_steps.order_storing(request, self.state.job_results, self.settings)
        progress.note_queued(self.executor.expect(request).seconds)
        self.at_executor += 1
        try:
            return await self.executor.upscale(source, request)
        finally:
            self.at_executor -= 1

    async def _read_source(self, job: StoredJob, share: MemoryShare) -> bytes:
        if job.order.source_name is None:
            # An InternalError here is of our own store, or of this machine: not the job's fault.
            async with share.arriving():
                with _reporting_store():
                    return await upscale_steps.fetch_source(
                        job.order.image_url or "",
                        share,
                        self.fetcher,
                        self.state.result_stores,
                        self.settings,
                    )
        with _reporting_store():
            source = await self.state.job_sources.read(job.order.source_name)
        if source is None:
            if await asyncio.to_thread(self.state.find_apart):
                raise StoreFailed(detail="the source of a job is in another front end's folder")
            raise InternalError(detail="the source of a job is not there")
        share.count(len(source))
        return source


@dataclass(frozen=True, slots=True)
class JobEnds:
    """Records the ends of jobs, each once, unless another process has claimed the job since."""

    state: State
    metrics: Metrics

    async def succeed(
        self, claimed: ClaimedJob, image: JobImage, tiles: int, *, begun_s: float
    ) -> None:
        """End a job with its stored result; delete that if another process has claimed the job.

        begun_s: when the work on it began, of `time.monotonic`.

        Raises:
            DatabaseFailed: whether the end was recorded is unknown.
        """
        job, result = claimed.job, image.result
        finish = partial(
            self.state.jobs.finish,
            claimed,
            PaidResult(image.file_name, result.media_type),
            image=image.made,
            tiles=tiles,
        )
        if not await try_often(finish):
            await run_to_end(self.state.job_results.delete(image.file_name))
            return
        scale = job.order.scale
        self.metrics.note_job_result(result, scale=scale, source_bytes=image.source_bytes)
        await self.note(
            job,
            "succeeded",
            model=result.model,
            result_bytes=result.size_bytes,
            seconds=round(time.monotonic() - begun_s, 3),
        )

    async def fail(self, claimed: ClaimedJob, error: ServiceError) -> None:
        """End a job with an error and release its credit; DatabaseFailed as of `succeed`."""
        if await try_often(partial(self.state.jobs.fail, claimed, error)):
            await self.note(claimed.job, "failed", error_code=error.error_code)

    async def note(self, job: StoredJob, status: JobState, **fields: object) -> None:
        """Log and count a job that this process ended, and delete its source."""
        name = _EVENTS[status]
        extra = event(name, job_id=job.id, key_name=job.key_name, **fields)
        _logger.info("a job ended", extra=extra)
        self.metrics.note_job(status)
        if job.is_metered:
            self.metrics.note_credit("captured" if status == "succeeded" else "released")
        if job.order.source_name is not None:
            await self.state.job_sources.delete(job.order.source_name)


def _describe(header: Header, result: Result) -> MadeImage:
    return MadeImage(
        result.model,
        result.format,
        header.width_px * header.height_px,
        result.width_px * result.height_px,
        result.timings.device_s,
    )
