"""Upscale the image of a job: read its source, compute, and store the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from upscaled.api.memory import MemoryBudget, MemoryShare
from upscaled.api.progress import Progress
from upscaled.api.upscale_steps import (
    build_request,
    fetch_source,
    order_storing,
    read_checked_header,
    store_result,
)
from upscaled.config import Settings
from upscaled.errors import InternalError
from upscaled.fetch.client import FetchClient
from upscaled.image.types import Header
from upscaled.pool.executor import Executor
from upscaled.state import State
from upscaled.state.job_rows import StoredJob
from upscaled.state.usage import MadeImage
from upscaled.upscale.result import Result


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


class JobImages:
    """Upscales images of jobs by the executor; `at_executor` are those that it has not answered."""

    def __init__(
        self,
        settings: Settings,
        executor: Executor,
        state: State,
        *,
        fetcher: FetchClient,
        budget: MemoryBudget,
    ) -> None:
        self.at_executor = 0
        self._settings = settings
        self._executor = executor
        self._state = state
        self._fetcher = fetcher
        self._budget = budget

    async def upscale(self, job: StoredJob, progress: Progress) -> JobImage:
        """Upscale a job's image and store the result.

        Raises:
            StoreFailed: the store of sources or of results does not work.
            RateLimitExceeded: there is no memory or no slot for it now.
            ServiceError: as of a request.
        """
        results = self._state.job_results
        with self._budget.share(job.key_id) as share:
            source = await self._read_source(job, share)
            header = await read_checked_header(source, job.order.scale, self._settings)
            result = await self._compute(job, source, header, progress)
        with _reporting_store():
            file_name = await store_result(result, results)
        return JobImage(result, file_name, len(source), _describe(header, result))

    async def _compute(
        self, job: StoredJob, source: bytes, header: Header, progress: Progress
    ) -> Result:
        request = build_request(
            job.id,
            header,
            self._settings,
            key_id=job.key_id,
            scale=job.order.scale,
            model=job.order.model,
            choice=job.order.choice,
            source_bytes=len(source),
        )
        request = replace(request, on_tile=progress.note_tile)
        request = order_storing(request, self._state.job_results, self._settings)
        progress.note_queued(self._executor.expect(request).seconds)
        self.at_executor += 1
        try:
            return await self._executor.upscale(source, request)
        finally:
            self.at_executor -= 1

    async def _read_source(self, job: StoredJob, share: MemoryShare) -> bytes:
        if job.order.source_name is None:
            # An InternalError here is of our own store, or of this machine: not the job's fault.
            async with share.arriving():
                with _reporting_store():
                    return await fetch_source(
                        job.order.image_url or "",
                        share,
                        self._fetcher,
                        self._state.result_stores,
                        self._settings,
                    )
        with _reporting_store():
            source = await self._state.job_sources.read(job.order.source_name)
        if source is None:
            raise InternalError(detail="the source of a job is not there")
        share.count(len(source))
        return source


def _describe(header: Header, result: Result) -> MadeImage:
    return MadeImage(
        result.model,
        result.format,
        header.width_px * header.height_px,
        result.width_px * result.height_px,
        result.timings.device_s,
    )
