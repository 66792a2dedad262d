"""Admit a job in a caller's transaction: check its key's limit and `Idempotency-Key`, add a row."""

import json
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import RateLimitExceeded
from upscaled.state.database import database_time_s
from upscaled.state.idempotency import RequestKey, insert_key, make_anew, read_key
from upscaled.state.job_rows import JobOrder, StoredJob, count_unfinished, find_job
from upscaled.state.schema import JOBS

RETRY_AFTER_S: Final = 10
"""Time after which a key with too many jobs may try again: the time that a job takes is not known
before it runs."""


def check_job_limit(connection: Connection, key_id: int, max_unfinished: int) -> None:
    """Raise RateLimitExceeded if a key has `max_unfinished` or more jobs that have not ended."""
    if count_unfinished(connection, JOBS.c.key_id == key_id) >= max_unfinished:
        detail = f"key {key_id} has {max_unfinished} jobs that have not ended"
        raise RateLimitExceeded(RETRY_AFTER_S, reason="jobs", detail=detail)


def find_first(
    connection: Connection, request_key: RequestKey | None, job_id: str, *, lifetime_s: float
) -> tuple[StoredJob | None, bool]:
    """Return the job that an earlier request with the same `Idempotency-Key` made.

    None if there was no such request, or its job failed or its lifetime is over: the key then
    stands for `job_id`. The second value says whether a job whose lifetime is over was charged, so
    that `job_id` must not be. Raises what `IdempotencyKeys.reserve` does.
    """
    if request_key is None or insert_key(connection, request_key, job_id, is_job=True):
        return None, False
    row = read_key(connection, request_key)
    first = find_job(connection, request_key.key_id, row.request_id, lifetime_s=lifetime_s)
    if first is not None and first.state != "failed":
        return first, False
    return None, make_anew(connection, request_key, row, job_id)


def insert_job(
    connection: Connection, job_id: str, key_id: int, order: JobOrder, *, is_metered: bool
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
