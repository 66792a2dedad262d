"""Usage: a row for each answer of an upscale and each job's end, whether images are metered or not.

The rows say who used how much; what was paid is the credit ledger's alone. A row of an answer is
written a moment after it, in a batch, and a row of a job's end in the transaction that ends it.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import Database, insert_into
from upscaled.state.job_rows import StoredJob
from upscaled.state.ledger import IMAGE_PRICE
from upscaled.state.schema import API_KEYS, USAGE_ROWS

UsageKind = Literal["upscale", "dry run", "job", "replay", "reuse", "job end"]
"""What was answered: an upscale, or why it was refused; a dry run; the acceptance of a job; the
answer of an earlier request once more; a stored result for the same picture. "job end": nothing was
answered, a job has ended."""

UsageGroup = Literal["day", "key", "model"]
USAGE_GROUPS: Final[tuple[UsageGroup, ...]] = get_args(UsageGroup)

DAY_S: Final = 86_400
ROWS_AT_ONCE: Final = 1000
"""In one transaction: the holds of requests wait for SQLite's one writer no longer than that."""


def _make_id() -> int:
    """Return an id by which a row that is added again is known."""
    return secrets.randbits(63)


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image that was made: its model, format ("jpeg"), sizes in pixels and device seconds."""

    model: str
    format: str
    input_px: int
    output_px: int
    device_s: float


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One answer, or several alike ones; what is not known is None.

    Attributes:
        at_s: when it ended, in seconds since 1970.
        key_id: None where the request had no valid key.
        status: of HTTP; of a job's end the one that the request would have got without a job. None
            where the client left before an answer, or the job was cancelled.
        format: of the result, as "jpeg".
        credits: charged for it.
        device_s: seconds that the device was at work on this image.
        answers: number of equal answers within about a second that this row stands for.
    """

    at_s: int
    kind: UsageKind
    key_id: int | None = None
    status: int | None = None
    error_code: str | None = None
    model: str | None = None
    scale: int | None = None
    format: str | None = None
    input_px: int | None = None
    output_px: int | None = None
    credits: int = 0
    device_s: float | None = None
    answers: int = 1
    id: int = field(default_factory=_make_id)


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The usage of one group: of a day, a key, a model, or what they have in common.

    Attributes:
        day: UTC, in days since 1970; None where not grouped by it, as the other two.
        key_id, key_name: None of requests without a valid key; the name is the present one.
        model: None where no model made an image.
        requests: answers over HTTP, and requests whose clients left before one.
        images: delivered, those of jobs included; `replay`s are none.
        refused, failed, left: not delivered: the request was at fault; the service was; the client
            left, or cancelled the job.
    """

    day: int | None
    key_id: int | None
    key_name: str | None
    model: str | None
    requests: int
    images: int
    refused: int
    failed: int
    left: int
    credits: int
    input_px: int
    output_px: int
    device_s: float


class Usage:
    """The usage rows of one database, for any thread and any number of processes."""

    def __init__(self, database: Database, clock: Callable[[], float], *, keep_s: float) -> None:
        """
        Args:
            keep_s: how long rows are kept.
        """
        self._database = database
        self._clock = clock
        self._keep_s = keep_s

    def add(self, rows: Sequence[UsageRow]) -> None:
        """Write rows; those that are there already, from a try that seemed to fail, stay as is.

        Raises:
            DatabaseFailed: some may have been written; add the same ones again.
        """
        for first in range(0, len(rows), ROWS_AT_ONCE):
            with self._database.write() as connection:
                insert_usage(connection, rows[first : first + ROWS_AT_ONCE])

    def report(
        self, by: Sequence[UsageGroup] = (), *, since_s: float = 0, until_s: float | None = None
    ) -> tuple[UsageTotals, ...]:
        """Return the usage of a time, one for each group that has any, in the groups' order.

        Args:
            by: what to group by; nothing: all in one, which may be all zeros.
            since_s, until_s: from and before, in seconds since 1970; None: no end.
        """
        query = _select_totals(by).where(USAGE_ROWS.c.at_s >= since_s)
        if until_s is not None:
            query = query.where(USAGE_ROWS.c.at_s < until_s)
        with self._database.read() as connection:
            return tuple(UsageTotals(**row._mapping) for row in connection.execute(query))

    def remove_old(self) -> int:
        """Remove rows older than they are kept, and return how many; a part at a time."""
        row, removed = USAGE_ROWS.c, 0
        old = sa.select(row.id).where(row.at_s < self._clock() - self._keep_s).limit(ROWS_AT_ONCE)
        while True:
            with self._database.write() as connection:
                delete = sa.delete(USAGE_ROWS).where(row.id.in_(old))
                count = connection.execute(delete).rowcount
            removed += count
            if count < ROWS_AT_ONCE:
                return removed


def insert_usage(connection: Connection, rows: Sequence[UsageRow]) -> None:
    """Insert rows in the caller's transaction; those that are there already stay as they are."""
    insert = insert_into(connection, USAGE_ROWS).on_conflict_do_nothing()
    connection.execute(insert, [asdict(row) for row in rows])


def note_job_end(
    connection: Connection,
    job: StoredJob,
    status: int | None,
    *,
    at_s: int,
    error_code: str | None = None,
    image: MadeImage | None = None,
) -> None:
    """Insert the row of a job that ends, in the transaction that ends it.

    Args:
        status: see `UsageRow`.
    """
    made = {} if image is None else asdict(image)
    is_paid = job.is_metered and status == HTTPStatus.OK
    row = UsageRow(
        at_s,
        "job end",
        job.key_id,
        status,
        error_code,
        scale=job.order.scale,
        credits=IMAGE_PRICE if is_paid else 0,
        **made,
    )
    insert_usage(connection, [row])


def _select_totals(by: Sequence[UsageGroup]) -> sa.Select[Any]:
    """Select the columns of `UsageTotals`, with NULL for what is not grouped by."""
    row = USAGE_ROWS.c
    groups: dict[UsageGroup, list[sa.ColumnElement[Any]]] = {
        "day": [(row.at_s // DAY_S).label("day")],
        "key": [row.key_id, API_KEYS.c.name.label("key_name")],
        "model": [row.model],
    }
    chosen = [column for name in by for column in groups[name]]
    absent = [
        sa.null().label(column.name)
        for name, columns in groups.items()
        for column in columns
        if name not in by
    ]
    source: sa.FromClause = USAGE_ROWS
    if "key" in by:
        source = USAGE_ROWS.outerjoin(API_KEYS, API_KEYS.c.id == row.key_id)
    query = sa.select(*chosen, *absent, *_totals()).select_from(source).group_by(*chosen)
    return query.order_by(*(column.nulls_first() for column in chosen))


def _totals() -> list[sa.ColumnElement[Any]]:
    row = USAGE_ROWS.c
    is_image = sa.and_(row.status == 200, row.kind.in_(["upscale", "reuse", "job end"]))
    counted = {
        "requests": row.kind != "job end",
        "images": is_image,
        "refused": row.status.between(400, 499),
        "failed": row.status >= 500,
        "left": row.status.is_(None),
    }
    counts = [
        _sum(sa.case((condition, row.answers), else_=0), name)
        for name, condition in counted.items()
    ]
    return [
        *counts,
        *(_sum(row[name] * row.answers, name) for name in ("credits", "input_px", "output_px")),
        sa.func.coalesce(sa.func.sum(row.device_s * row.answers), 0.0).label("device_s"),
    ]


def _sum(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[int]:
    # PostgreSQL adds big integers up as NUMERIC.
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger).label(name)
