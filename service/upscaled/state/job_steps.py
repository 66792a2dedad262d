"""Add, claim, end and remove jobs in a caller's transaction, with their holds and webhooks."""

import json
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import InternalError, RateLimitExceeded
from upscaled.state import job_rows, ledger
from upscaled.state.database import database_time_s
from upscaled.state.idempotency import RequestKey, insert_key, make_anew, read_key
from upscaled.state.ledger import Hold
from upscaled.state.schema import API_KEYS, JOBS, WEBHOOK_DELIVERIES
from upscaled.state.usage import note_job_end
from upscaled.state.webhook_rows import queue_delivery

LEASE_S: Final = 30.0
"""Time for which a job stays with a front end that says nothing; renewed every `RENEW_EVERY_S`."""
MAX_ATTEMPTS: Final = 5
"""Front ends that may die, or be cut off, while they work on a job, before it is given up."""
RETRY_AFTER_S: Final = 10
"""Time after which a key with too many jobs may try again: the time that a job takes is not known
before it runs."""
ENDED_AT_ONCE: Final = 100
"""Bounds a transaction that ends jobs which are not run any more; the next claim goes on."""


def check_job_limit(connection: Connection, key_id: int, max_unfinished: int) -> None:
    """Raise RateLimitExceeded if a key has `max_unfinished` or more jobs that have not ended."""
    if job_rows.count_unfinished(connection, key_id) >= max_unfinished:
        detail = f"key {key_id} has {max_unfinished} jobs that have not ended"
        raise RateLimitExceeded(RETRY_AFTER_S, reason="jobs", detail=detail)


def find_first(
    connection: Connection, request_key: RequestKey | None, job_id: str, *, lifetime_s: float
) -> tuple[job_rows.StoredJob | None, bool]:
    """Return the job that an earlier request with the same `Idempotency-Key` made.

    None if there was no such request, or its job failed or its lifetime is over: the key then
    stands for `job_id`. The second value says whether a job whose lifetime is over was charged, so
    that `job_id` must not be. Raises what `IdempotencyKeys.reserve` does.
    """
    if request_key is None or insert_key(connection, request_key, job_id, leased_by=None):
        return None, False
    row = read_key(connection, request_key)
    first = job_rows.find_job(connection, request_key.key_id, row.request_id, lifetime_s=lifetime_s)
    if first is not None and first.state != "failed":
        return first, False
    return None, make_anew(connection, request_key, row, job_id)


def insert_job(
    connection: Connection, job_id: str, key_id: int, order: job_rows.JobOrder, *, is_metered: bool
) -> None:
    """Insert the row of a job that waits."""
    connection.execute(
        sa.insert(JOBS).values(
            id=job_id,
            key_id=key_id,
            state="queued",
            source_name=order.source_name,
            image_url=order.image_url,
            scale=order.scale,
            model=order.model,
            choice=json.dumps(order.choice.changes()),
            base_url=order.base_url,
            webhook_url=order.webhook_url,
            is_metered=is_metered,
            created_at_s=database_time_s(connection),
        )
    )


def claim_next(
    connection: Connection, after_key_id: int, lease_id: str, *, has_settled: bool
) -> str | None:
    """Put the next job under a lease, and return its id; None if there is none."""
    next_id = job_rows.select_claimable(connection, after_key_id, has_settled=has_settled)
    claimed = connection.execute(
        sa.update(JOBS)
        .where(
            JOBS.c.id == next_id.scalar_subquery(),
            JOBS.c.attempts < MAX_ATTEMPTS,
        )
        .values(
            state="running",
            lease_id=lease_id,
            lease_until_s=database_time_s(connection) + LEASE_S,
            attempts=JOBS.c.attempts + 1,
            tiles_done=0,
            tiles_total=None,
        )
        .returning(JOBS.c.id)
    )
    return claimed.scalar_one_or_none()


def end_job(
    connection: Connection,
    condition: sa.ColumnElement[bool],
    state: job_rows.JobState,
    **values: object,
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
    job: job_rows.StoredJob,
    status: int | None,
    error_code: str | None = None,
    *,
    at_s: int,
) -> None:
    """Release the credit held for a job without a result, and record its usage (see `UsageRow`)."""
    if job.is_metered:
        ledger.release(connection, Hold(job.key_id, job.id), at_s=at_s)
    note_job_end(connection, job, status, at_s=at_s, error_code=error_code)


def end_revoked(connection: Connection, *, at_s: int) -> Sequence[job_rows.StoredJob]:
    """Cancel the waiting jobs of revoked keys, and return them."""
    revoked = sa.select(API_KEYS.c.id).where(API_KEYS.c.revoked_at_s.is_not(None))
    waiting = sa.and_(
        job_rows.is_unfinished(JOBS), JOBS.c.state == "queued", JOBS.c.key_id.in_(revoked)
    )
    return _end_all(connection, waiting, "cancelled", at_s=at_s)


def end_left(
    connection: Connection, *, has_settled: bool, at_s: int
) -> Sequence[job_rows.StoredJob]:
    """Fail the jobs whose last allowed attempt was abandoned by its process, and return them."""
    error = InternalError()
    is_left = job_rows.is_left(connection, has_settled=has_settled)
    left = sa.and_(is_left, JOBS.c.attempts >= MAX_ATTEMPTS)
    codes = {"error_code": error.error_code, "error_text": error.public_text}
    return _end_all(connection, left, "failed", at_s=at_s, **codes)


def _end_all(
    connection: Connection,
    unwanted: sa.ColumnElement[bool],
    state: job_rows.JobState,
    *,
    at_s: int,
    **values: object,
) -> Sequence[job_rows.StoredJob]:
    """End the jobs that meet a condition and that no process runs; return them as they are then.

    In the order of their keys, whose rows are locked one after the other, as `lock_active` does.
    """
    order = (JOBS.c.key_id, JOBS.c.id)
    query = job_rows.select_jobs().where(unwanted).order_by(*order).limit(ENDED_AT_ONCE)
    ended = []
    for row in connection.execute(job_rows.lock_rows(connection, query)).all():
        if end_job(connection, sa.and_(JOBS.c.id == row.id, unwanted), state, **values):
            job = job_rows.read_job(connection, row.id)
            status = None if state == "cancelled" else InternalError.status
            settle_unpaid(connection, job, status, job.error_code, at_s=at_s)
            ended.append(job)
    return ended


def remove_ended(connection: Connection, *, lifetime_s: float) -> int:
    """Remove jobs that ended before `lifetime_s`, but those whose webhook waits; count them."""
    delivery = WEBHOOK_DELIVERIES.c
    waiting = sa.select(delivery.job_id).where(delivery.state == "waiting")
    is_old = JOBS.c.ended_at_s < database_time_s(connection) - lifetime_s
    removed = connection.execute(sa.delete(JOBS).where(is_old, JOBS.c.id.not_in(waiting)))
    kept = sa.select(JOBS.c.id)
    connection.execute(sa.delete(WEBHOOK_DELIVERIES).where(delivery.job_id.not_in(kept)))
    return removed.rowcount
