"""The job queue: upscales that are accepted now and run later, each billed exactly once.

    submit ──> queued ──claim──> running ──finish──> succeeded   (hold captured)
                 ^                  │ ├────fail────> failed      (hold released)
                 └──put back────────┘ └───cancel───> cancelled   (hold released; queued ones too)

A job and its hold are written in one transaction, and so are its end, the hold's, its webhook and
its usage row. A front end works on a job under a lease, which it renews. A lease that ran out (the
front end died, or was cut off from the database) lets another one claim the job, and its first
owner can neither finish it nor take its credit. Leases are measured by the database's clock, which
all front ends share.
"""

import json
import uuid
from http import HTTPStatus
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import (
    InsufficientApiCredits,
    InternalError,
    RateLimitExceeded,
    ServiceError,
)
from upscaled.state import ledger
from upscaled.state.clocks import Clocks
from upscaled.state.database import Database, database_time_s
from upscaled.state.idempotency import (
    RequestKey,
    insert_key,
    is_known,
    read_key,
    rename_request,
)
from upscaled.state.job_rows import (
    UNFINISHED_STATES,
    ClaimedJob,
    JobChange,
    JobOrder,
    JobState,
    StoredJob,
    StoredJobPage,
    count_unfinished,
    find_job,
    is_left,
    is_ours,
    is_unfinished,
    job_from_row,
    lock_rows,
    read_job,
    select_claimable,
    select_jobs,
)
from upscaled.state.ledger import Hold, PaidResult
from upscaled.state.schema import API_KEYS, JOBS, WEBHOOK_DELIVERIES
from upscaled.state.usage import MadeImage, note_job_end
from upscaled.state.webhooks import queue_delivery

LEASE_S: Final = 30.0
"""Time for which a job stays with a front end that says nothing; renewed every `RENEW_EVERY_S`."""
RENEW_EVERY_S: Final = 2.0
"""Far more often than the lease needs: a renewal also carries progress, and learns of a cancel."""
MAX_ATTEMPTS: Final = 5
"""Front ends that may die, or be cut off, while they work on a job, before it is given up."""

ENDED_AT_ONCE: Final = 100
"""Bounds a transaction that ends jobs which are not run any more; the next claim goes on."""
RETRY_AFTER_S: Final = 10
"""Time after which a key with too many jobs may try again: the time that a job takes is not known
before it runs."""


class Jobs:
    """The jobs of one database, for any thread and any number of processes."""

    def __init__(self, database: Database, clocks: Clocks) -> None:
        """
        Args:
            clocks: their wall clock dates the entries of the ledger.
        """
        self._database = database
        self._clocks = clocks

    def submit(
        self,
        key_id: int,
        order: JobOrder,
        *,
        is_metered: bool,
        max_unfinished: int,
        request_key: RequestKey | None = None,
    ) -> JobChange:
        """Add a job, and hold its credit, in one transaction.

        Args:
            max_unfinished: jobs that the key may have queued and running, this one included. Of
                several added at the same moment on PostgreSQL a few may be more.

            request_key: of a request that may be sent again: the same job is returned then,
                unless it failed or its lifetime is over.

        Raises:
            InvalidParameter, RequestInProgress: as of `IdempotencyKeys.reserve`.
            RateLimitExceeded: the key has so many already.
            InsufficientApiCredits: the key's balance is 0; there is no job.
            DatabaseFailed: it may have been added or not.
        """
        job_id = str(uuid.uuid4())
        with self._database.write() as connection:
            if request_key and not insert_key(connection, request_key, job_id, is_job=True):
                first_id = read_key(connection, request_key).request_id
                first = find_job(connection, key_id, first_id)
                if first is not None and first.state != "failed":
                    return JobChange(first, is_changed=False)
                rename_request(connection, request_key, first_id, job_id)
            _check_room(connection, key_id, max_unfinished)
            if is_metered:
                hold = Hold(key_id, job_id)
                ledger.insert_hold(connection, hold, ledger.JOB_HOLDER, at_s=self._now_s())
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
            return JobChange(read_job(connection, job_id), is_changed=True)

    def check_room(
        self,
        key_id: int,
        *,
        is_metered: bool,
        max_unfinished: int,
        request_key: RequestKey | None = None,
    ) -> None:
        """Check whether a job could be submitted now, before its source is stored.

        Args:
            request_key: one that is known needs no room, as its job is there; `submit` decides.

        Raises:
            RateLimitExceeded, InsufficientApiCredits: as of `submit`.
        """
        with self._database.read() as connection:
            if request_key is not None and is_known(connection, request_key):
                return
            _check_room(connection, key_id, max_unfinished)
            if is_metered and ledger.read_balance(connection, key_id) < ledger.IMAGE_PRICE:
                raise InsufficientApiCredits(detail=f"key {key_id}")

    def claim(self, after_key_id: int = 0) -> ClaimedJob | None:
        """Take a job without a valid lease under a new one; None if there is none.

        Keys with the fewest running jobs go first, of those in turn the next one; of a key's jobs
        the oldest.

        Args:
            after_key_id: the key of the job that this process claimed last.
        """
        lease_id = uuid.uuid4().hex
        with self._database.write() as connection:
            now_s = database_time_s(connection)
            claimed = connection.execute(
                sa.update(JOBS)
                .where(
                    JOBS.c.id == select_claimable(connection, after_key_id).scalar_subquery(),
                    JOBS.c.attempts < MAX_ATTEMPTS,
                )
                .values(
                    state="running",
                    lease_id=lease_id,
                    lease_until_s=now_s + LEASE_S,
                    attempts=JOBS.c.attempts + 1,
                    tiles_done=0,
                    tiles_total=None,
                )
                .returning(JOBS.c.id)
            ).scalar_one_or_none()
            return None if claimed is None else ClaimedJob(read_job(connection, claimed), lease_id)

    def renew(self, claimed: ClaimedJob, tiles_done: int, tiles_total: int | None) -> bool:
        """Renew the lease and note the progress; False where the job is no longer this process's.

        It was cancelled then, or its lease had run out and another process claimed it.
        """
        with self._database.write() as connection:
            renewed = connection.execute(
                sa.update(JOBS)
                .where(is_ours(claimed))
                .values(
                    lease_until_s=database_time_s(connection) + LEASE_S,
                    tiles_done=tiles_done,
                    tiles_total=tiles_total,
                )
            )
            return renewed.rowcount == 1

    def finish(
        self,
        claimed: ClaimedJob,
        result: PaidResult,
        *,
        image: MadeImage | None = None,
        tiles: int = 0,
    ) -> bool:
        """End the job with its stored result and capture its credit, in one transaction.

        Args:
            image: what the result is.
            tiles: all tiles of the image.

        Done again with the same result it changes nothing.

        Returns:
            False where the job is no longer this process's: the result must be thrown away.
        """
        job = claimed.job
        with self._database.write() as connection:
            if not self._end(
                connection,
                is_ours(claimed),
                "succeeded",
                result_name=result.file_name,
                result_media_type=result.media_type,
                result_model=image.model if image else "",
                tiles_done=tiles,
                tiles_total=tiles,
            ):
                return read_job(connection, job.id).result == result
            if job.is_metered:
                hold = Hold(job.key_id, job.id)
                ledger.capture(connection, hold, None, at_s=self._now_s())
            self._note_usage(connection, job, HTTPStatus.OK, image=image)
            return True

    def fail(self, claimed: ClaimedJob, error: ServiceError) -> bool:
        """End the job with an error and release its credit, in one transaction.

        Returns:
            False where the job is no longer this process's; nothing is changed then.
        """
        with self._database.write() as connection:
            is_failed = self._end(
                connection,
                is_ours(claimed),
                "failed",
                error_code=error.error_code,
                error_text=error.public_text,
            )
            if is_failed:
                self._release(connection, claimed.job)
                self._note_usage(connection, claimed.job, error.status, error.error_code)
            return is_failed

    def put_back(self, claimed: ClaimedJob, delay_s: float = 0.0) -> bool:
        """Queue the job again, as if it had not been claimed; False where it is another's.

        Args:
            delay_s: how long it is not claimed.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(JOBS)
                .where(is_ours(claimed))
                .values(
                    state="queued",
                    lease_id=None,
                    lease_until_s=database_time_s(connection) + delay_s if delay_s else None,
                    attempts=JOBS.c.attempts - 1,
                    tiles_done=0,
                    tiles_total=None,
                )
            )
            return changed.rowcount == 1

    def cancel(self, key_id: int, job_id: str) -> JobChange | None:
        """Cancel a job and release its credit; one that has ended stays as it is.

        Returns:
            The job as it is afterwards; None where the key has no such job.
        """
        is_open = sa.and_(
            JOBS.c.id == job_id, JOBS.c.key_id == key_id, JOBS.c.state.in_(UNFINISHED_STATES)
        )
        with self._database.write() as connection:
            is_cancelled = self._end(connection, is_open, "cancelled")
            job = find_job(connection, key_id, job_id)
            if job is not None and is_cancelled:
                self._release(connection, job)
                self._note_usage(connection, job, None)
            return None if job is None else JobChange(job, is_cancelled)

    def end_unwanted(self) -> tuple[StoredJob, ...]:
        """End jobs that wait under a revoked key, and those whose last allowed attempt was left.

        Returns:
            Those that this call ended; there may be more.
        """
        error = InternalError()
        revoked = sa.select(API_KEYS.c.id).where(API_KEYS.c.revoked_at_s.is_not(None))
        with self._database.write() as connection:
            waiting = sa.and_(
                is_unfinished(JOBS), JOBS.c.state == "queued", JOBS.c.key_id.in_(revoked)
            )
            left = sa.and_(is_left(connection), JOBS.c.attempts >= MAX_ATTEMPTS)
            codes = {"error_code": error.error_code, "error_text": error.public_text}
            return (
                *self._end_unwanted(connection, waiting, "cancelled"),
                *self._end_unwanted(connection, left, "failed", **codes),
            )

    def find(self, key_id: int, job_id: str) -> StoredJob | None:
        """Return a key's job; None where it has none of this id."""
        with self._database.read() as connection:
            return find_job(connection, key_id, job_id)

    def list_page(
        self,
        key_id: int,
        *,
        state: JobState | None = None,
        after: tuple[float, str] | None = None,
        limit: int,
    ) -> StoredJobPage:
        """Return a key's jobs, the newest first.

        Args:
            state: only jobs in this state.
            after: `next_position` of the page before.
            limit: most jobs on the page, from 1.
        """
        position = sa.tuple_(JOBS.c.created_at_s, JOBS.c.id)
        query = select_jobs().where(JOBS.c.key_id == key_id)
        if state is not None:
            query = query.where(JOBS.c.state == state)
        if after is not None:
            query = query.where(position < sa.tuple_(*after))
        query = query.order_by(JOBS.c.created_at_s.desc(), JOBS.c.id.desc()).limit(limit + 1)
        with self._database.read() as connection:
            jobs = [job_from_row(row) for row in connection.execute(query)]
        page = tuple(jobs[:limit])
        last = page[-1] if len(jobs) > limit else None
        return StoredJobPage(page, None if last is None else (last.created_at_s, last.id))

    def count_unfinished(self) -> int:
        """Return how many jobs are queued or running."""
        with self._database.read() as connection:
            return count_unfinished(connection, sa.true())

    def remove_ended(self, *, lifetime_s: float) -> int:
        """Remove jobs that ended longer ago than `lifetime_s`; return how many.

        A job whose webhook waits is kept until that is over.
        """
        delivery = WEBHOOK_DELIVERIES.c
        waiting = sa.select(delivery.job_id).where(delivery.state == "waiting")
        with self._database.write() as connection:
            is_old = JOBS.c.ended_at_s < database_time_s(connection) - lifetime_s
            removed = connection.execute(sa.delete(JOBS).where(is_old, JOBS.c.id.not_in(waiting)))
            kept = sa.select(JOBS.c.id)
            connection.execute(sa.delete(WEBHOOK_DELIVERIES).where(delivery.job_id.not_in(kept)))
            return removed.rowcount

    def sources_in_use(self) -> frozenset[str]:
        """Return the names of stored sources that a queued or running job still needs."""
        query = sa.select(JOBS.c.source_name).where(
            is_unfinished(JOBS), JOBS.c.source_name.is_not(None)
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(query).scalars())

    def _end(
        self,
        connection: Connection,
        condition: sa.ColumnElement[bool],
        state: JobState,
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

    def _release(self, connection: Connection, job: StoredJob) -> None:
        if job.is_metered:
            ledger.release(connection, Hold(job.key_id, job.id), at_s=self._now_s())

    def _note_usage(
        self,
        connection: Connection,
        job: StoredJob,
        status: int | None,
        error_code: str | None = None,
        image: MadeImage | None = None,
    ) -> None:
        at_s = self._now_s()
        note_job_end(connection, job, status, at_s=at_s, error_code=error_code, image=image)

    def _now_s(self) -> int:
        return int(self._clocks.wall())

    def _end_unwanted(
        self,
        connection: Connection,
        unwanted: sa.ColumnElement[bool],
        state: JobState,
        **values: object,
    ) -> list[StoredJob]:
        """End jobs that meet a condition and are no process's; return them as they are then."""
        query = select_jobs().where(unwanted).order_by(JOBS.c.id).limit(ENDED_AT_ONCE)
        ended = []
        for row in connection.execute(lock_rows(connection, query)).all():
            if self._end(connection, sa.and_(JOBS.c.id == row.id, unwanted), state, **values):
                job = read_job(connection, row.id)
                self._release(connection, job)
                status = None if state == "cancelled" else InternalError.status
                self._note_usage(connection, job, status, job.error_code)
                ended.append(job)
        return ended


def _check_room(connection: Connection, key_id: int, max_unfinished: int) -> None:
    if count_unfinished(connection, JOBS.c.key_id == key_id) >= max_unfinished:
        detail = f"key {key_id} has {max_unfinished} jobs that have not ended"
        raise RateLimitExceeded(RETRY_AFTER_S, reason="jobs", detail=detail)
