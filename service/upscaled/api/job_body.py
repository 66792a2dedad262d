"""Describe a job: in the answers of `/v1/jobs`, and in the webhook at its end."""

from datetime import UTC, datetime

from upscaled.api import schemas
from upscaled.state.job_rows import StoredJob
from upscaled_models.registry import split_strength


def describe_job(
    job: StoredJob,
    tiles: tuple[int, int | None],
    *,
    base_url: str,
    lifetime_s: int,
    remaining_s: float | None = None,
) -> schemas.Job:
    """Return the body that says how a job is.

    Args:
        tiles: done, and in all.
        lifetime_s: of a job and its result, from its end on.
        remaining_s: expected of the network; None where it is not known, or the job has ended.
    """
    result_url = expires_at = error = None
    if job.result is not None and job.ended_at_s is not None:
        result_url = f"{base_url}{schemas.RESULT_PATH}{job.result.file_name}"
        expires_at = format_time(job.ended_at_s + lifetime_s)
    if job.error_code is not None:
        error = schemas.Error(
            error=job.error_text or "", error_code=schemas.ErrorCode(job.error_code)
        )
    named, denoise = split_strength(job.order.model)
    return schemas.Job(
        id=job.id,
        status=job.state,
        scale=schemas.Scale(job.order.scale),
        model=job.result_model or named or None,
        denoise=denoise,
        created_at=format_time(job.created_at_s),
        ended_at=None if job.ended_at_s is None else format_time(job.ended_at_s),
        tiles_done=tiles[0],
        tiles_total=tiles[1],
        remaining_s=None if remaining_s is None else round(remaining_s, 2),
        result_url=result_url,
        expires_at=expires_at,
        error=error,
    )


def format_time(time_s: float) -> datetime:
    """Return a time as bodies give it: in UTC, to the millisecond."""
    return datetime.fromtimestamp(round(time_s, 3), UTC)
