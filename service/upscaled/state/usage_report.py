"""Add up usage rows by day, API key and model.

Each day is read by a statement of its own: one over all rows of a busy year would exceed
`UPSCALED_DATABASE_TIMEOUT_S` on PostgreSQL.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import Database
from upscaled.state.schema import API_KEYS, USAGE_ROWS

DAY_S: Final = 86_400
UsageGroup = Literal["day", "key", "model"]
USAGE_GROUPS: Final[tuple[UsageGroup, ...]] = get_args(UsageGroup)


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


_GROUPS: Final = ("day", "key_id", "key_name", "model")
_FIGURES: Final = [each.name for each in fields(UsageTotals) if each.name not in _GROUPS]
_Group = tuple[int | None, int | None, str | None]


def report_usage(
    database: Database, by: Sequence[UsageGroup], *, since_s: float, until_s: float | None
) -> tuple[UsageTotals, ...]:
    """Return the usage of a period; see `Usage.report`."""
    query, sums = _select_totals(by), dict[_Group, UsageTotals]()
    if not by:
        sums[None, None, None] = UsageTotals(None, None, None, None, 0, 0, 0, 0, 0, 0, 0, 0, 0.0)
    with database.read() as connection:
        for is_of_day in _days(connection, since_s, until_s):
            for row in connection.execute(query.where(is_of_day)).all():
                totals = UsageTotals(**row._mapping, key_name=None)
                group = totals.day, totals.key_id, totals.model
                sums[group] = _add(sums[group], totals) if group in sums else totals
        names = _read_names(connection) if "key" in by else {}
    return tuple(
        replace(sums[group], key_name=names.get(group[1])) for group in sorted(sums, key=_order)
    )


def _days(
    connection: Connection, since_s: float, until_s: float | None
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield, for each UTC day with rows in a period, the condition that selects these rows."""
    at_s = USAGE_ROWS.c.at_s
    is_wanted = sa.true() if until_s is None else at_s < until_s
    begin_s = since_s
    while True:
        first = sa.select(sa.func.min(at_s)).where(at_s >= begin_s, is_wanted)
        first_s = connection.execute(first).scalar_one()
        if first_s is None:
            return
        begin_s = (first_s // DAY_S + 1) * DAY_S
        yield sa.and_(at_s >= first_s, at_s < begin_s, is_wanted)


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


def _select_totals(by: Sequence[UsageGroup]) -> sa.Select[Any]:
    """Select the columns of `UsageTotals` but for names, with NULL for what is not grouped by."""
    row = USAGE_ROWS.c
    groups: dict[UsageGroup, sa.ColumnElement[Any]] = {
        "day": (row.at_s // DAY_S).label("day"),
        "key": row.key_id,
        "model": row.model,
    }
    chosen = [groups[name] for name in by]
    absent = [sa.null().label(column.name) for name, column in groups.items() if name not in by]
    figures = [_sum(column, name) for name, column in _figures().items()]
    device_s = sa.func.coalesce(sa.func.sum(row.device_s * row.answers), 0.0).label("device_s")
    return sa.select(*chosen, *absent, *figures, device_s).group_by(*chosen)


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.case((condition, USAGE_ROWS.c.answers), else_=0)


def _figures() -> dict[str, sa.ColumnElement[int]]:
    """Return the integer columns of `UsageTotals` as expressions of one row, by name."""
    row = USAGE_ROWS.c
    is_image = sa.and_(row.status == 200, row.kind.in_(["upscale", "reuse", "job end"]))
    return {
        "requests": _count(row.kind != "job end"),
        "images": _count(is_image),
        "refused": _count(row.status.between(400, 499)),
        "failed": _count(row.status >= 500),
        "left": _count(row.status.is_(None)),
        **{name: row[name] * row.answers for name in ("credits", "input_px", "output_px")},
    }


def _sum(column: sa.ColumnElement[int], name: str) -> sa.ColumnElement[int]:
    # PostgreSQL adds big integers up as NUMERIC.
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger).label(name)
