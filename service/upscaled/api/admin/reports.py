"""Reports over HTTP: usage by day, key and model, and the audit log."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query

from upscaled.api import schemas
from upscaled.api.admin.authentication import ADMIN_API, ADMIN_KEY
from upscaled.api.admin.keys import AppState
from upscaled.api.admin.schemas import AuditedChange, UsageFigures, in_utc
from upscaled.errors import InvalidParameter
from upscaled.state.usage_days import USAGE_GROUPS, UsageGroup

MAX_CHANGES: Final = 10_000
_DEFAULT_PERIOD: Final = timedelta(days=30)

router = APIRouter(
    prefix=ADMIN_API,
    dependencies=[ADMIN_KEY],
    responses=schemas.KEY_ERRORS | schemas.describe_errors(InvalidParameter),
)

Since = Annotated[
    datetime | None,
    Query(description="Start: a date or a time, in UTC without an offset; by default 30 days ago"),
]
Until = Annotated[datetime | None, Query(description="End, itself not included; by default now")]
By = Annotated[list[UsageGroup], Query(description="What to group by; may be repeated")]


@router.get("/usage", operation_id="get_usage", summary="Usage by day, key and model")
async def get_usage(
    state: AppState,
    since: Since = None,
    until: Until = None,
    by: By = ["day"],  # noqa: B006
) -> list[UsageFigures]:
    groups = [each for each in USAGE_GROUPS if each in by]
    report = partial(state.usage.report, groups, **_period(since, until))
    return [UsageFigures.of(totals) for totals in await asyncio.to_thread(report)]


@router.get(
    "/audit",
    operation_id="get_audit",
    summary="Changes of keys, credits and webhooks, oldest first",
    description=f"At most the last {MAX_CHANGES}.",
)
async def get_audit(
    state: AppState, since: Since = None, until: Until = None
) -> list[AuditedChange]:
    list_changes = partial(state.audit.list, last=MAX_CHANGES, **_period(since, until))
    return [AuditedChange.of(entry) for entry in await asyncio.to_thread(list_changes)]


def _period(since: datetime | None, until: datetime | None) -> dict[str, float]:
    """Return a time as the arguments of a report."""
    begin = datetime.now(UTC) - _DEFAULT_PERIOD if since is None else since
    period = {"since_s": in_utc(begin).timestamp()}
    return period if until is None else period | {"until_s": in_utc(until).timestamp()}
