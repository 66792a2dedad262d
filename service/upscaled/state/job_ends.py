"""End a job in a caller's transaction: update its row, queue its webhook, settle hold and usage."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import InternalError
from upscaled.state import ledger
from upscaled.state.database import database_time_s
from upscaled.state.job_rows import (
    JobState,
    StoredJob,
    is_left,
    is_unfinished,
    lock_rows,
    read_job,
    select_jobs,
)
from upscaled.state.ledger import Hold
from upscaled.state.schema import API_KEYS, JOBS
from upscaled.state.usage import note_job_end
from upscaled.state.webhook_rows import queue_delivery

ENDED_AT_ONCE: Final = 100
"""Bounds a transaction that ends jobs which are not run any more; the next claim goes on."""


def end_job(
    connection: Connection, condition: sa.ColumnElement[bool], state: JobState, **values: object
) -> bool:
    """End the job that meets the condition and queue its webhook; False where there is none."""
    ended = connection.execute(
        sa.update(JOBS)
        .where(condition)
        .values(
            state=state,
            lease_id=None,
            lease_until_s=None,
            ended_at_s=database_time_s(connection),
            **values,
        )
        .returning(JOBS.c.id, JOBS.c.key_id, JOBS.c.webhook_url)
    ).one_or_none()
    if ended is not None:
        queue_delivery(connection, *ended)
    return ended is not None


def settle_unpaid(
    connection: Connection,
    job: StoredJob,
    status: int | None,
    error_code: str | None = None,
    *,
    at_s: int,
) -> None:
    """Release the credit held for a job without a result, and record its usage (see `UsageRow`)."""
    if job.is_metered:
        ledger.release(connection, Hold(job.key_id, job.id), at_s=at_s)
    note_job_end(connection, job, status, at_s=at_s, error_code=error_code)


def end_revoked(connection: Connection, *, at_s: int) -> Sequence[StoredJob]:
    """Cancel the waiting jobs of revoked keys, and return them."""
    revoked = sa.select(API_KEYS.c.id).where(API_KEYS.c.revoked_at_s.is_not(None))
    waiting = sa.and_(is_unfinished(JOBS), JOBS.c.state == "queued", JOBS.c.key_id.in_(revoked))
    return _end_all(connection, waiting, "cancelled", at_s=at_s)


def end_left(connection: Connection, *, max_attempts: int, at_s: int) -> Sequence[StoredJob]:
    """Fail the jobs whose last allowed attempt was abandoned by its process, and return them."""
    error = InternalError()
    left = sa.and_(is_left(connection), JOBS.c.attempts >= max_attempts)
    codes = {"error_code": error.error_code, "error_text": error.public_text}
    return _end_all(connection, left, "failed", at_s=at_s, **codes)


def _end_all(
    connection: Connection,
    unwanted: sa.ColumnElement[bool],
    state: JobState,
    *,
    at_s: int,
    **values: object,
) -> Sequence[StoredJob]:
    """End the jobs that meet a condition and that no process runs; return them as they are then.

    In the order of their keys, whose rows are locked one after the other, as `lock_active` does.
    """
    order = (JOBS.c.key_id, JOBS.c.id)
    query = select_jobs().where(unwanted).order_by(*order).limit(ENDED_AT_ONCE)
    ended = []
    for row in connection.execute(lock_rows(connection, query)).all():
        if end_job(connection, sa.and_(JOBS.c.id == row.id, unwanted), state, **values):
            job = read_job(connection, row.id)
            status = None if state == "cancelled" else InternalError.status
            settle_unpaid(connection, job, status, job.error_code, at_s=at_s)
            ended.append(job)
    return ended
