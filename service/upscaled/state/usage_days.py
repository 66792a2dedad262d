"""Add up the usage of finished days, so that a report need not read each of their rows.

What was added up counts only while the day has as many rows as then, since rows are added and
removed but never changed: a row that is written late, or removed by age, makes a report read the
day's rows again, without any lock between writers and this cache. Key 0 and model "" stand there
for none, as columns of a primary key are never null.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import Database, insert_into
from upscaled.state.schema import USAGE_DAYS, USAGE_ROWS

DAY_S: Final = 86_400
UsageGroup = Literal["day", "key", "model"]
USAGE_GROUPS: Final[tuple[UsageGroup, ...]] = get_args(UsageGroup)

_COUNTS: Final = (
    *("requests", "images", "refused", "failed", "left"),
    *("credits", "input_px", "output_px"),
)
_Groups = Mapping[UsageGroup, sa.ColumnElement[Any]]
_DAYS_AT_ONCE: Final = 10
"""Limits the days of one call, which a sweep makes every minute: those of a busy year take a second
each, and other sweeping waits."""


@dataclass(frozen=True, slots=True)
class DayWithRows:
    """Part of a UTC day that has rows; `number` is in days since 1970, `is_of_it` selects rows."""

    number: int
    is_whole: bool
    is_of_it: sa.ColumnElement[bool]


def days_with_rows(
    connection: Connection, since_s: float, until_s: float | None
) -> Iterator[DayWithRows]:
    """Yield each UTC day with rows in a period, from `since_s` and before `until_s`."""
    at_s = USAGE_ROWS.c.at_s
    is_wanted = sa.true() if until_s is None else at_s < until_s
    begin_s = since_s
    while True:
        first = sa.select(sa.func.min(at_s)).where(at_s >= begin_s, is_wanted)
        first_s = connection.execute(first).scalar_one()
        if first_s is None:
            return
        number = first_s // DAY_S
        begin_s = (number + 1) * DAY_S
        is_whole = since_s <= number * DAY_S and (until_s is None or until_s >= begin_s)
        yield DayWithRows(number, is_whole, sa.and_(at_s >= first_s, at_s < begin_s, is_wanted))


def count_rows(connection: Connection, day: DayWithRows) -> int:
    """Return how many rows a day has, read from an index alone."""
    query = sa.select(sa.func.count()).select_from(USAGE_ROWS).where(day.is_of_it)
    return int(connection.execute(query).scalar_one())


def count_rolled_up(connection: Connection) -> dict[int, int]:
    """Return how many rows of each day were added up, by the day's number."""
    day = USAGE_DAYS.c
    query = sa.select(day.day, sa.func.sum(day.row_count).label("rows")).group_by(day.day)
    return {each.day: int(each.rows) for each in connection.execute(query)}


def roll_up(database: Database, *, since_s: float, now_s: float) -> int:
    """Add up some finished days since `since_s`, the oldest first, and return how many.

    The last one that was added up is looked at again, for rows that were written late.
    """
    today_s = int(now_s // DAY_S) * DAY_S
    first_s = math.ceil(since_s / DAY_S) * DAY_S
    with database.read() as connection:
        rolled_up = count_rolled_up(connection)
        if rolled_up:
            first_s = max(first_s, max(rolled_up) * DAY_S)
        due = list(
            islice(
                (
                    day
                    for day in days_with_rows(connection, first_s, today_s)
                    if count_rows(connection, day) != rolled_up.get(day.number, 0)
                ),
                _DAYS_AT_ONCE,  # the days behind these are not even counted
            )
        )
    for day in due:
        _replace(database, day)
    return len(due)


def _replace(database: Database, day: DayWithRows) -> None:
    """Add one day up. It is read before the transaction that writes, which holds others up."""
    count = sa.func.count().label("row_count")
    query = select_row_totals(USAGE_GROUPS, count).where(day.is_of_it)
    with database.read() as connection:
        groups: list[dict[str, Any]] = [
            {**row._mapping, "key_id": row.key_id or 0, "model": row.model or ""}
            for row in connection.execute(query)
        ]
    with database.write() as connection:
        connection.execute(sa.delete(USAGE_DAYS).where(USAGE_DAYS.c.day == day.number))
        if groups:  # else they were removed meanwhile
            insert = insert_into(connection, USAGE_DAYS).on_conflict_do_nothing()
            connection.execute(insert, groups)


def select_row_totals(by: Sequence[UsageGroup], *extra: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select `UsageTotals` but for names, and `extra`; a group that is not in `by` is NULL."""
    row = USAGE_ROWS.c
    groups: _Groups = {
        "day": (row.at_s // DAY_S).label("day"),
        "key": row.key_id.label("key_id"),
        "model": row.model.label("model"),
    }
    return _select(by, groups, _row_figures(), row.device_s * row.answers, extra)


def select_day_totals(by: Sequence[UsageGroup]) -> sa.Select[Any]:
    """Select totals of days that were added up, with the columns of `select_row_totals`."""
    day = USAGE_DAYS.c
    groups: _Groups = {
        "day": day.day,
        "key": sa.func.nullif(day.key_id, 0).label("key_id"),
        "model": sa.func.nullif(day.model, "").label("model"),
    }
    return _select(by, groups, {name: day[name] for name in _COUNTS}, day.device_s, ())


def _select(
    by: Sequence[UsageGroup],
    groups: _Groups,
    figures: Mapping[str, sa.ColumnElement[int]],
    device_s: sa.ColumnElement[float],
    extra: Sequence[sa.ColumnElement[Any]],
) -> sa.Select[Any]:
    chosen = [groups[name] for name in by]
    absent = [sa.null().label(column.name) for name, column in groups.items() if name not in by]
    sums = [_sum(column, name) for name, column in figures.items()]
    seconds = sa.func.coalesce(sa.func.sum(device_s), 0.0).label("device_s")
    return sa.select(*chosen, *absent, *sums, seconds, *extra).group_by(*chosen)


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.case((condition, USAGE_ROWS.c.answers), else_=0)


def _row_figures() -> dict[str, sa.ColumnElement[int]]:
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
