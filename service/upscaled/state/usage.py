"""Usage: a row for each answer of an upscale and each job's end, whether images are metered or not.

What was paid is the credit ledger's alone. Rows of answers are written in batches, a moment later,
a row of a job's end in the transaction that ends it. A report reads whole days that were added up
from there, each other one by a statement of its own: all rows of a busy year would exceed
`UPSCALED_DATABASE_TIMEOUT_S` on PostgreSQL.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state import usage_days
from upscaled.state.clocks import Clocks
from upscaled.state.database import Database, insert_into
from upscaled.state.job_rows import StoredJob
from upscaled.state.ledger import IMAGE_PRICE
from upscaled.state.schema import API_KEYS, USAGE_DAYS, USAGE_ROWS

UsageKind = Literal["upscale", "dry run", "job", "replay", "reuse", "job end"]
"""What was answered: an upscale, or why it was refused; a dry run; the acceptance of a job; the
answer of an earlier request once more; a stored result for the same picture. "job end": nothing was
answered, a job has ended."""

ROWS_AT_ONCE: Final = 1000
"""In one transaction: the holds of requests wait for SQLite's one writer no longer than that."""


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

    at_s: when it ended, in seconds since 1970. key_id: None without a valid key. status: of HTTP,
    or what a job's request would have got; None where the client left, or the job was cancelled.
    format: of the result, as "jpeg". credits: charged. device_s: of the device on this image.
    answers: equal ones within about a second. id: by it a row that is added again is known.
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
    id: int = field(default_factory=partial(secrets.randbits, 63))


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The usage of one group: of a day, a key, a model, or what they have in common.

    day: UTC, in days since 1970. day, key_id, key_name (the present one), model: None where not
    grouped by, or without one. requests: answers over HTTP, and clients that left before. images:
    delivered, those of jobs included; `replay`s are none. refused, failed, left: the request was at
    fault; the service was; the client left, or cancelled the job.
    """

    day: int | None
    key_id: int | None
    key_name: str | None
    model: str | None
    requests: int = 0
    images: int = 0
    refused: int = 0
    failed: int = 0
    left: int = 0
    credits: int = 0
    input_px: int = 0
    output_px: int = 0
    device_s: float = 0.0


_GROUPS: Final = ("day", "key_id", "key_name", "model")
_FIGURES: Final = [each.name for each in fields(UsageTotals) if each.name not in _GROUPS]
_DAYS_AT_ONCE: Final = 500
_Group = tuple[int | None, int | None, str | None]


class Usage:
    """The usage rows of one database, for any thread and any number of processes."""

    def __init__(self, database: Database, clocks: Clocks, *, keep_s: float) -> None:
        """Keep rows for `keep_s`."""
        self._database = database
        self._clocks = clocks
        self._keep_s = keep_s

    def add(self, rows: Sequence[UsageRow]) -> None:
        """Write rows; those that are there already, from a try that seemed to fail, stay as is.

        After a DatabaseFailed, add the same ones again.
        """
        for first in range(0, len(rows), ROWS_AT_ONCE):
            with self._database.write() as connection:
                insert_usage(connection, rows[first : first + ROWS_AT_ONCE])

    def report(
        self,
        by: Sequence[usage_days.UsageGroup] = (),
        *,
        since_s: float = 0,
        until_s: float | None = None,
    ) -> tuple[UsageTotals, ...]:
        """Return the usage from `since_s` and before `until_s`, one for each group, in their order.

        Without groups it is all in one, which may be all zeros.
        """
        sums = dict[_Group, UsageTotals]()
        if not by:
            sums[None, None, None] = UsageTotals(None, None, None, None)
        with self._database.read() as connection:
            for totals in _read_totals(connection, by, since_s, until_s):
                group = totals.day, totals.key_id, totals.model
                sums[group] = _add(sums[group], totals) if group in sums else totals
            names = _read_names(connection) if "key" in by else {}
        return tuple(
            replace(sums[group], key_name=names.get(group[1])) for group in sorted(sums, key=_order)
        )

    def roll_up(self) -> int:
        """Add up finished days, so that reports are fast, and return how many; see `usage_days`."""
        now_s = self._clocks.wall()
        return usage_days.roll_up(self._database, since_s=now_s - self._keep_s, now_s=now_s)

    def remove_old(self) -> int:
        """Remove rows older than they are kept, and return how many; a part at a time."""
        last_day = int((self._clocks.wall() - self._keep_s) // usage_days.DAY_S)
        with self._database.write() as connection:
            connection.execute(sa.delete(USAGE_DAYS).where(USAGE_DAYS.c.day < last_day))
        row, removed = USAGE_ROWS.c, 0
        old = (
            sa.select(row.id)
            .where(row.at_s < self._clocks.wall() - self._keep_s)
            .limit(ROWS_AT_ONCE)
        )
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
    """Insert the row of a job (see `UsageRow`) in the transaction that ends it."""
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


def _read_totals(
    connection: Connection,
    by: Sequence[usage_days.UsageGroup],
    since_s: float,
    until_s: float | None,
) -> Iterator[UsageTotals]:
    """Yield totals of a period, several of one group among them."""
    rolled_up = usage_days.count_rolled_up(connection)
    whole: list[int] = []
    for day in usage_days.days_with_rows(connection, since_s, until_s):
        if day.number in rolled_up and _is_up_to_date(connection, day, rolled_up[day.number]):
            whole.append(day.number)
            continue
        query = usage_days.select_row_totals(by).where(day.is_of_it)
        yield from _totals(connection, query)
    for first in range(0, len(whole), _DAYS_AT_ONCE):
        days = USAGE_DAYS.c.day.in_(whole[first : first + _DAYS_AT_ONCE])
        yield from _totals(connection, usage_days.select_day_totals(by).where(days))


def _is_up_to_date(connection: Connection, day: usage_days.DayWithRows, rows: int) -> bool:
    """Return whether a whole day has as many rows as were added up: none is ever changed."""
    return day.is_whole and usage_days.count_rows(connection, day) == rows


def _totals(connection: Connection, query: sa.Select[Any]) -> Iterator[UsageTotals]:
    for row in connection.execute(query).all():
        yield UsageTotals(**row._mapping, key_name=None)


def _add(one: UsageTotals, other: UsageTotals) -> UsageTotals:
    """Return the sum of two totals of one group."""
    sums = {name: getattr(one, name) + getattr(other, name) for name in _FIGURES}
    return replace(one, **sums)


def _order(group: _Group) -> list[tuple[bool, int | str]]:
    """Return the sort key of a group: days, keys and models ascending, those without one first."""
    return [(part is not None, 0 if part is None else part) for part in group]


def _read_names(connection: Connection) -> dict[int | None, str]:
    """Return the present names of all keys, by their ids."""
    rows = connection.execute(sa.select(API_KEYS.c.id, API_KEYS.c.name))
    return {row.id: row.name for row in rows}
