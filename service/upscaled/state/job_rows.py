"""Rows of the table of jobs: what they hold as values, and the conditions that find them."""

import json
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.state.database import database_time_s, has_come
from upscaled.state.ledger import PaidResult
from upscaled.state.schema import API_KEYS, JOBS

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JOB_STATES: Final[tuple[JobState, ...]] = get_args(JobState)

UNFINISHED_STATES: Final[tuple[JobState, ...]] = ("queued", "running")
LONGEST_LEASE_S: Final = 60.0
"""The furthest that `lease_until_s` is ever set ahead: a lease, or the wait of one put back."""
ENDED_STATES: Final[tuple[JobState, ...]] = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class JobOrder:
    """The work of a job.

    source_name: the stored source; None where it is to be fetched from `image_url`. model: what the
    client named, with its strength of denoising; "" for the server's choice. choice: wishes for the
    result. base_url: where the URLs of results began; None where that is unknown. webhook_url:
    to call at the job's end; None: the address of its key, if there is one.
    """

    source_name: str | None
    image_url: str | None
    scale: int
    model: str
    choice: OutputChoice = NO_CHOICE
    base_url: str | None = None
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it is in the database; times are seconds since 1970 by the database's clock.

    is_metered: whether it holds a credit: not one that is made again after its lifetime under its
    idempotency key. tiles_done, tiles_total: of the attempt under way, as of its last renewal;
    total is None until known. result, result_model: what succeeded, and what made it. error_code,
    error_text: as the contract's error bodies. ended_at_s: None while it is queued or running.
    """

    id: str
    key_id: int
    key_name: str
    state: JobState
    order: JobOrder
    is_metered: bool
    attempts: int
    tiles_done: int
    tiles_total: int | None
    result: PaidResult | None
    result_model: str | None
    error_code: str | None
    error_text: str | None
    created_at_s: float
    ended_at_s: float | None

    @property
    def is_ended(self) -> bool:
        """Return whether the job will not change any more."""
        return self.state not in UNFINISHED_STATES


@dataclass(frozen=True, slots=True)
class JobChange:
    """A job after a call that should change it, and whether this call did."""

    job: StoredJob
    is_changed: bool


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that this process may work on as long as the lease is in the database."""

    job: StoredJob
    lease_id: str


@dataclass(frozen=True, slots=True)
class StoredJobPage:
    """Jobs of a key, the newest first; `next_position` begins the next page, None at the end."""

    jobs: tuple[StoredJob, ...]
    next_position: tuple[float, str] | None


def is_ours(claimed: ClaimedJob) -> sa.ColumnElement[bool]:
    """Return the condition that a job is still under the lease of its claim."""
    return sa.and_(
        JOBS.c.id == claimed.job.id, JOBS.c.state == "running", JOBS.c.lease_id == claimed.lease_id
    )


def is_left(connection: Connection, *, has_settled: bool) -> sa.ColumnElement[bool]:
    """Return the condition that a running job's lease is over: ended, or run out.

    has_settled: the clock shows whether one has run out.
    """
    until_s = JOBS.c.lease_until_s
    has_run_out = has_come(connection, until_s, LONGEST_LEASE_S) if has_settled else sa.false()
    is_over = sa.or_(until_s.is_(None), has_run_out)
    return sa.and_(is_unfinished(JOBS), JOBS.c.state == "running", is_over)


def select_claimable(
    connection: Connection, after_key_id: int, *, has_settled: bool
) -> sa.Select[Any]:
    """Select the id of the next job that is queued, and due, or left (see `is_left`).

    Keys with the fewest running jobs go first, then the next behind `after_key_id`, then old ones.
    """
    running = (
        sa.select(JOBS.c.key_id, sa.func.count().label("count"))
        .where(is_unfinished(JOBS), JOBS.c.state == "running")
        .group_by(JOBS.c.key_id)
        .subquery()
    )
    is_due = has_come(connection, sa.func.coalesce(JOBS.c.lease_until_s, 0.0), LONGEST_LEASE_S)
    is_waiting = sa.and_(JOBS.c.state == "queued", is_due)
    query = (
        sa.select(JOBS.c.id)
        .outerjoin(running, running.c.key_id == JOBS.c.key_id)
        .where(
            is_unfinished(JOBS),
            sa.or_(is_waiting, is_left(connection, has_settled=has_settled)),
        )
        .order_by(
            sa.func.coalesce(running.c.count, 0),
            sa.case((JOBS.c.key_id > after_key_id, 0), else_=1),
            JOBS.c.key_id,
            JOBS.c.created_at_s,
            JOBS.c.id,
        )
        .limit(1)
    )
    return lock_rows(connection, query)


def lock_rows(connection: Connection, query: sa.Select[Any]) -> sa.Select[Any]:
    """Lock the jobs that a query finds, and pass over locked ones; SQLite has one writer."""
    if connection.dialect.name == "postgresql":
        return query.with_for_update(of=JOBS, skip_locked=True)
    return query


def is_unfinished(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Return the condition of the partial index: SQLite uses that only for literal values."""
    return table.c.state.in_([sa.literal_column(f"'{state}'") for state in UNFINISHED_STATES])


def count_unfinished(connection: Connection, key_id: int) -> int:
    """Count the jobs of a key that are queued or running."""
    is_of_key = JOBS.c.key_id == key_id
    query = sa.select(sa.func.count()).select_from(JOBS).where(is_unfinished(JOBS), is_of_key)
    return int(connection.execute(query).scalar_one())


def select_jobs() -> sa.Select[Any]:
    """Select the rows of jobs, for `job_from_row`."""
    key_name = API_KEYS.c.name.label("key_name")
    return sa.select(JOBS, key_name).join(API_KEYS, API_KEYS.c.id == JOBS.c.key_id)


def read_page(
    connection: Connection,
    condition: sa.ColumnElement[bool],
    after: tuple[float, str] | None,
    limit: int,
) -> StoredJobPage:
    """Return at most `limit` jobs that meet a condition, the newest first, from a position on."""
    query = select_jobs().where(condition)
    if after is not None:
        query = query.where(sa.tuple_(JOBS.c.created_at_s, JOBS.c.id) < sa.tuple_(*after))
    query = query.order_by(JOBS.c.created_at_s.desc(), JOBS.c.id.desc()).limit(limit + 1)
    jobs = [job_from_row(row) for row in connection.execute(query)]
    page = tuple(jobs[:limit])
    last = page[-1] if len(jobs) > limit else None
    return StoredJobPage(page, None if last is None else (last.created_at_s, last.id))


def read_job(connection: Connection, job_id: str) -> StoredJob:
    return job_from_row(connection.execute(select_jobs().where(JOBS.c.id == job_id)).one())


def is_shown(connection: Connection, lifetime_s: float) -> sa.ColumnElement[bool]:
    """Return the condition that a job has not ended, or less than its lifetime ago."""
    ended_at_s = JOBS.c.ended_at_s
    return sa.or_(ended_at_s.is_(None), ended_at_s >= database_time_s(connection) - lifetime_s)


def find_job(
    connection: Connection, key_id: int, job_id: str, *, lifetime_s: float
) -> StoredJob | None:
    is_of_key = sa.and_(JOBS.c.id == job_id, JOBS.c.key_id == key_id)
    query = select_jobs().where(is_of_key, is_shown(connection, lifetime_s))
    row = connection.execute(query).one_or_none()
    return None if row is None else job_from_row(row)


def job_from_row(row: sa.Row[Any]) -> StoredJob:
    values: dict[str, Any] = {**row._mapping, "choice": OutputChoice(**json.loads(row.choice))}
    values["result"] = None
    if row.result_name is not None:
        values["result"] = PaidResult(row.result_name, row.result_media_type)
    values["order"] = JobOrder(**{each.name: values[each.name] for each in fields(JobOrder)})
    return StoredJob(**{each.name: values[each.name] for each in fields(StoredJob)})
