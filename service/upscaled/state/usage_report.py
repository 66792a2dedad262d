"""Add up usage by day, API key and model.

Whole days that were added up are read from there, each other one by a statement of its own: all
rows of a busy year would exceed `UPSCALED_DATABASE_TIMEOUT_S` on PostgreSQL.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import Database
from upscaled.state.schema import API_KEYS, USAGE_DAYS
from upscaled.state.usage_days import (
    DayWithRows,
    UsageGroup,
    count_rolled_up,
    count_rows,
    days_with_rows,
    select_day_totals,
    select_row_totals,
)


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
_DAYS_AT_ONCE: Final = 500
_Group = tuple[int | None, int | None, str | None]


def report_usage(
    database: Database, by: Sequence[UsageGroup], *, since_s: float, until_s: float | None
) -> tuple[UsageTotals, ...]:
    """Return the usage of a period; see `Usage.report`."""
    sums = dict[_Group, UsageTotals]()
    if not by:
        sums[None, None, None] = UsageTotals(None, None, None, None, 0, 0, 0, 0, 0, 0, 0, 0, 0.0)
    with database.read() as connection:
        for totals in _read_totals(connection, by, since_s, until_s):
            group = totals.day, totals.key_id, totals.model
            sums[group] = _add(sums[group], totals) if group in sums else totals
        names = _read_names(connection) if "key" in by else {}
    return tuple(
        replace(sums[group], key_name=names.get(group[1])) for group in sorted(sums, key=_order)
    )


def _read_totals(
    connection: Connection, by: Sequence[UsageGroup], since_s: float, until_s: float | None
) -> Iterator[UsageTotals]:
    """Yield totals of a period, several of one group among them."""
    rolled_up = count_rolled_up(connection)
    whole: list[int] = []
    for day in days_with_rows(connection, since_s, until_s):
        if day.number in rolled_up and _is_up_to_date(connection, day, rolled_up[day.number]):
            whole.append(day.number)
            continue
        query = select_row_totals(by).where(day.is_of_it)
        yield from _totals(connection, query)
    for first in range(0, len(whole), _DAYS_AT_ONCE):
        days = USAGE_DAYS.c.day.in_(whole[first : first + _DAYS_AT_ONCE])
        yield from _totals(connection, select_day_totals(by).where(days))


def _is_up_to_date(connection: Connection, day: DayWithRows, rows: int) -> bool:
    """Return whether a whole day has as many rows as were added up: none is ever changed."""
    return day.is_whole and count_rows(connection, day) == rows


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
