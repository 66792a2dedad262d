"""Select the totals of usage, of its rows or of days that were added up, by any groups.

The table `usage_days` is a cache of `usage_rows`: a row for each group of a finished day. Key 0 and
model "" stand there for none, as columns of a primary key are never null.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from upscaled.state.schema import USAGE_DAYS, USAGE_ROWS

DAY_S: Final = 86_400
UsageGroup = Literal["day", "key", "model"]
USAGE_GROUPS: Final[tuple[UsageGroup, ...]] = get_args(UsageGroup)

_COUNTS: Final = (
    *("requests", "images", "refused", "failed", "left"),
    *("credits", "input_px", "output_px"),
)
_Groups = Mapping[UsageGroup, sa.ColumnElement[Any]]


def select_row_totals(by: Sequence[UsageGroup], *extra: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select the columns of `UsageTotals` but for names, and extra ones; not grouped by: NULL."""
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
