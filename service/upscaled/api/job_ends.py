"""Record the end of a job: its result and its credit, the log, the metrics, and its source."""

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from upscaled.api.billing import try_often
from upscaled.api.cancellation import run_to_end
from upscaled.api.job_images import JobImage
from upscaled.api.telemetry.metrics import Metrics
from upscaled.errors import ServiceError
from upscaled.logs import event
from upscaled.state import PaidResult, State
from upscaled.state.job_rows import ClaimedJob, JobState, StoredJob

_EVENTS: Final[Mapping[JobState, str]] = {
    "succeeded": "job_done",
    "failed": "job_failed",
    "cancelled": "job_cancelled",
}

_logger: Final = logging.getLogger(__name__)


class JobEnds:
    """Records the ends of jobs, each once, unless another process has claimed the job since."""

    def __init__(self, state: State, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics

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
            self._state.jobs.finish,
            claimed,
            PaidResult(image.file_name, result.media_type),
            image=image.made,
            tiles=tiles,
        )
        if not await try_often(finish):
            await run_to_end(self._state.job_results.delete(image.file_name))
            return
        scale = job.order.scale
        self._metrics.note_job_result(result, scale=scale, source_bytes=image.source_bytes)
        await self.note(
            job,
            "succeeded",
            model=result.model,
            result_bytes=result.size_bytes,
            seconds=round(time.monotonic() - begun_s, 3),
        )

    async def fail(self, claimed: ClaimedJob, error: ServiceError) -> None:
        """End a job with an error and release its credit; DatabaseFailed as of `succeed`."""
        if await try_often(partial(self._state.jobs.fail, claimed, error)):
            await self.note(claimed.job, "failed", error_code=error.error_code)

    async def note(self, job: StoredJob, status: JobState, **fields: object) -> None:
        """Log and count a job that this process ended, and delete its source."""
        name = _EVENTS[status]
        extra = event(name, job_id=job.id, key_name=job.key_name, **fields)
        _logger.info("a job ended", extra=extra)
        self._metrics.note_job(status)
        if job.is_metered:
            self._metrics.note_credit("captured" if status == "succeeded" else "released")
        if job.order.source_name is not None:
            await self._state.job_sources.delete(job.order.source_name)
