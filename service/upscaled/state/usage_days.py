"""Add up the usage of finished days, so that a report need not read each of their rows.

What was added up counts only while the day has as many rows as then, since rows are added and
removed but never changed: a row that is written late, or removed by age, makes a report read the
day's rows again, without any lock between writers and this cache.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import Database, insert_into
from upscaled.state.schema import USAGE_DAYS, USAGE_ROWS
from upscaled.state.usage_figures import DAY_S, USAGE_GROUPS, select_row_totals

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
