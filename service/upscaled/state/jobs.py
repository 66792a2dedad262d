"""The job queue: upscales that are accepted now and run later, each billed exactly once.

    submit ──> queued ──claim──> running ──finish──> succeeded   (hold captured)
                 ^                  │ ├────fail────> failed      (hold released)
                 └──put back────────┘ └───cancel───> cancelled   (hold released; queued ones too)

A job and its hold are written in one transaction, and so are its end, the hold's, its webhook and
its usage row. A front end works under a lease by the database's clock. Where that runs out, another
one claims the job, and its first owner can neither finish it nor capture its credit.
"""

import uuid
from http import HTTPStatus
from typing import Final

import sqlalchemy as sa

from upscaled.errors import InsufficientApiCredits, ServiceError
from upscaled.state import job_rows, job_steps, ledger
from upscaled.state.clocks import Clocks, DatabaseClock
from upscaled.state.database import Database, database_time_s
from upscaled.state.holder import Holder
from upscaled.state.idempotency import RequestKey, is_known
from upscaled.state.ledger import Hold, PaidResult
from upscaled.state.left_leases import make_lease_id
from upscaled.state.schema import JOBS
from upscaled.state.usage import MadeImage, note_job_end

RENEW_EVERY_S: Final = 2.0
"""Far more often than the lease needs: a renewal also carries progress, and learns of a cancel."""


class Jobs:
    """The jobs of one database, for any thread and any number of processes."""

    def __init__(
        self,
        database: Database,
        clocks: Clocks,
        database_clock: DatabaseClock,
        holder: Holder,
        lifetime_s: float,
    ) -> None:
        """Show jobs for `lifetime_s` after their end; the wall clock dates the ledger's entries."""
        self._database = database
        self._lifetime_s = lifetime_s
        self._clocks = clocks
        self._database_clock = database_clock
        self._holder = holder

    def submit(
        self,
        key_id: int,
        order: job_rows.JobOrder,
        *,
        is_metered: bool,
        max_unfinished: int,
        request_key: RequestKey | None = None,
    ) -> job_rows.JobChange:
        """Add a job, and hold its credit, in one transaction.

        Args:
            max_unfinished: jobs that the key may have queued and running, this one included; on
                PostgreSQL a few more of the same moment.
            request_key: of a request that may be sent again: the same job is returned then,
                unless it failed or its lifetime is over: then it is made again, charged once.

        Raises:
            InvalidParameter, RequestInProgress: as of `IdempotencyKeys.reserve`.
            RateLimitExceeded: the key has so many already.
            InsufficientApiCredits: the key's balance is 0; there is no job.
            DatabaseFailed: it may have been added or not.
        """
        job_id = str(uuid.uuid4())
        with self._database.write() as connection:
            first, is_paid = job_steps.find_first(
                connection, request_key, job_id, lifetime_s=self._lifetime_s
            )
            if first is not None:
                return job_rows.JobChange(first, is_changed=False)
            job_steps.check_job_limit(connection, key_id, max_unfinished)
            is_charged = is_metered and not is_paid
            job_steps.insert_job(connection, job_id, key_id, order, is_metered=is_charged)
            job = job_rows.read_job(connection, job_id)
            if is_charged:  # last: the key's row is locked until the commit
                hold = Hold(key_id, job_id)
                ledger.insert_hold(connection, hold, ledger.JOB_HOLDER, at_s=self._now_s())
            return job_rows.JobChange(job, is_changed=True)

    def check_job_limit(
        self,
        key_id: int,
        *,
        is_metered: bool,
        max_unfinished: int,
        request_key: RequestKey | None = None,
    ) -> None:
        """Raise what `submit` would now, before a job's source is stored; a known key passes."""
        with self._database.read() as connection:
            if request_key is not None and is_known(connection, request_key):
                return
            job_steps.check_job_limit(connection, key_id, max_unfinished)
            if is_metered and ledger.read_balance(connection, key_id) < ledger.IMAGE_PRICE:
                raise InsufficientApiCredits(detail=f"key {key_id}")

    def claim(self, after_key_id: int = 0) -> job_rows.ClaimedJob | None:
        """Claim a job without a valid lease under a new lease; None if there is none.

        Keys with the fewest running jobs go first, of those the one behind `after_key_id` (of the
        last claim); of a key's jobs the oldest.
        """
        lease_id = make_lease_id(self._holder.process_id)
        with self._database.write() as connection:
            has_settled = self._database_clock.has_run_steadily(connection, job_steps.LEASE_S)
            job_id = job_steps.claim_next(
                connection, after_key_id, lease_id, has_settled=has_settled
            )
            return (
                None
                if job_id is None
                else job_rows.ClaimedJob(job_rows.read_job(connection, job_id), lease_id)
            )

    def renew(self, claimed: job_rows.ClaimedJob, tiles_done: int, tiles_total: int | None) -> bool:
        """Renew the lease and note the progress; False where the job is no longer this process's.

        It was cancelled then, or its lease had run out and another process claimed it.
        """
        with self._database.write() as connection:
            renewed = connection.execute(
                sa.update(JOBS)
                .where(job_rows.is_ours(claimed))
                .values(
                    lease_until_s=database_time_s(connection) + job_steps.LEASE_S,
                    tiles_done=tiles_done,
                    tiles_total=tiles_total,
                )
            )
            return renewed.rowcount == 1

    def finish(
        self,
        claimed: job_rows.ClaimedJob,
        result: PaidResult,
        *,
        image: MadeImage | None = None,
        tiles: int = 0,
    ) -> bool:
        """End the job with its stored result and capture its credit, in one transaction.

        False where the job is no longer this process's: the result must be thrown away. Done again
        with the same result it changes nothing.
        """
        job = claimed.job
        with self._database.write() as connection:
            if not job_steps.end_job(
                connection,
                job_rows.is_ours(claimed),
                "succeeded",
                result_name=result.file_name,
                result_media_type=result.media_type,
                result_model=image.model if image else "",
                tiles_done=tiles,
                tiles_total=tiles,
            ):
                return job_rows.read_job(connection, job.id).result == result
            at_s = self._now_s()
            if job.is_metered:
                ledger.capture(connection, Hold(job.key_id, job.id), None, at_s=at_s)
            note_job_end(connection, job, HTTPStatus.OK, at_s=at_s, image=image)
            return True

    def fail(self, claimed: job_rows.ClaimedJob, error: ServiceError) -> bool:
        """End the job with an error and release its credit; False where it is not ours any more."""
        with self._database.write() as connection:
            is_failed = job_steps.end_job(
                connection,
                job_rows.is_ours(claimed),
                "failed",
                error_code=error.error_code,
                error_text=error.public_text,
            )
            if is_failed:
                job_steps.settle_unpaid(
                    connection, claimed.job, error.status, error.error_code, at_s=self._now_s()
                )
            return is_failed

    def put_back(self, claimed: job_rows.ClaimedJob, delay_s: float = 0.0) -> bool:
        """Queue the job again, as if it had not been claimed; False where it is not ours any more.

        It is not claimed for `delay_s`.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(JOBS)
                .where(job_rows.is_ours(claimed))
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

    def cancel(self, key_id: int, job_id: str) -> job_rows.JobChange | None:
        """Cancel a job and release its credit, unless it has ended; return it, None if unknown."""
        is_open = sa.and_(
            JOBS.c.id == job_id,
            JOBS.c.key_id == key_id,
            JOBS.c.state.in_(job_rows.UNFINISHED_STATES),
        )
        with self._database.write() as connection:
            is_cancelled = job_steps.end_job(connection, is_open, "cancelled")
            job = job_rows.find_job(connection, key_id, job_id, lifetime_s=self._lifetime_s)
            if job is not None and is_cancelled:
                job_steps.settle_unpaid(connection, job, None, at_s=self._now_s())
            return None if job is None else job_rows.JobChange(job, is_cancelled)

    def end_unwanted(self) -> tuple[job_rows.StoredJob, ...]:
        """End jobs that wait under a revoked key, or whose last allowed attempt was left.

        Those that this call ended are returned; there may be more.
        """
        at_s = self._now_s()
        with self._database.write() as connection:
            revoked = job_steps.end_revoked(connection, at_s=at_s)
            has_settled = self._database_clock.has_run_steadily(connection, job_steps.LEASE_S)
            left = job_steps.end_left(connection, has_settled=has_settled, at_s=at_s)
            return (*revoked, *left)

    def find(self, key_id: int, job_id: str) -> job_rows.StoredJob | None:
        with self._database.read() as connection:
            return job_rows.find_job(connection, key_id, job_id, lifetime_s=self._lifetime_s)

    def list_page(
        self,
        key_id: int,
        *,
        state: job_rows.JobState | None = None,
        after: tuple[float, str] | None = None,
        limit: int,
    ) -> job_rows.StoredJobPage:
        """Return at most `limit` of a key's jobs (in that state), the newest first.

        after: the `next_position` of the page before.
        """
        is_wanted = JOBS.c.key_id == key_id
        if state is not None:
            is_wanted = sa.and_(is_wanted, JOBS.c.state == state)
        with self._database.read() as connection:
            is_listed = sa.and_(is_wanted, job_rows.is_shown(connection, self._lifetime_s))
            return job_rows.read_page(connection, is_listed, after, limit)

    def remove_ended(self, *, lifetime_s: float) -> int:
        """Remove jobs that ended longer ago, but those whose webhook waits; return how many."""
        with self._database.write() as connection:
            return job_steps.remove_ended(connection, lifetime_s=lifetime_s)

    def sources_in_use(self) -> frozenset[str]:
        """Return the names of stored sources that a queued or running job still needs."""
        query = sa.select(JOBS.c.source_name).where(
            job_rows.is_unfinished(JOBS), JOBS.c.source_name.is_not(None)
        )
        with self._database.read() as connection:
            return frozenset(connection.execute(query).scalars())

    def _now_s(self) -> int:
        return int(self._clocks.wall())
