"""Webhooks over HTTP: set and test the address of a key, list webhooks, and send one again."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from upscaled.api.admin import schemas
from upscaled.api.admin.authentication import ADMIN_API, ADMIN_KEY
from upscaled.api.admin.keys import ERRORS, MAX_PAGE_ROWS, NEXT_PAGE, Actor, AppState, Cursor
from upscaled.api.dependencies import AppContext
from upscaled.api.paging import describe_link, read_job_position
from upscaled.api.webhook_sender import send_test
from upscaled.errors import InvalidParameter, NotFound
from upscaled.fetch.url import UnusableUrl, check_source_url
from upscaled.state.webhook_rows import DeliveryState

_DEFAULT_DELIVERIES: Final = 100
_WEBHOOK: Final = "/keys/{name}/webhook"

router = APIRouter(prefix=ADMIN_API, dependencies=[ADMIN_KEY], responses=ERRORS)

Wanted = Annotated[
    DeliveryState | None, Query(alias="state", description="Only those in this state")
]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_ROWS, description="Most of them")]


@router.get(_WEBHOOK, operation_id="get_webhook", summary="Where the webhooks of a key are sent")
async def get_webhook(state: AppState, name: str) -> schemas.Webhook:
    return schemas.Webhook.of(name, await asyncio.to_thread(state.webhooks.show, name))


@router.put(
    _WEBHOOK,
    operation_id="set_webhook",
    summary="Set the address of a key's webhooks, and read the secret that signs them",
    description="The address is trusted: it may be in the service's own network.",
)
async def set_webhook(
    state: AppState, actor: Actor, name: str, change: schemas.WebhookChange
) -> schemas.ConfiguredWebhook:
    """Set the address of an active key; one that is no http or https URL is InvalidParameter."""
    try:
        url = None if change.url is None else check_source_url(change.url)
    except UnusableUrl as error:
        raise InvalidParameter(f"url: {error.detail}") from None
    configure = partial(
        state.webhooks.configure, name, url, renews_secret=change.new_secret, by=actor
    )
    return schemas.ConfiguredWebhook.of(name, await asyncio.to_thread(configure))


@router.delete(
    _WEBHOOK,
    operation_id="remove_webhook",
    summary="Remove the address of a key's webhooks; its jobs may still name theirs",
    status_code=204,
)
async def remove_webhook(state: AppState, actor: Actor, name: str) -> None:
    webhook = await asyncio.to_thread(state.webhooks.show, name)
    if webhook is not None and webhook.url is not None:
        await asyncio.to_thread(state.webhooks.configure, name, None, by=actor)


@router.post(
    f"{_WEBHOOK}/test",
    operation_id="test_webhook",
    summary="Send a signed `webhook.test` to the address of a key, once",
)
async def test_webhook(context: AppContext, state: AppState, name: str) -> schemas.WebhookTrial:
    """Send a trial, and return its outcome; raise NotFound for a key without an address."""
    webhook = await asyncio.to_thread(state.webhooks.show, name)
    if webhook is None or webhook.url is None:
        raise NotFound(f"API key {name} has no webhook")
    outcome, reached = await send_test(context.fetcher, webhook.url, webhook.secret)
    return schemas.WebhookTrial(
        url=webhook.url, outcome=outcome, is_delivered=reached == "delivered"
    )


@router.get(
    "/webhooks",
    operation_id="list_webhooks",
    summary="The webhooks of the jobs that are kept, the newest job first",
    responses=NEXT_PAGE,
)
async def list_webhooks(
    response: Response,
    state: AppState,
    wanted: Wanted = None,
    limit: Limit = _DEFAULT_DELIVERIES,
    cursor: Cursor = "",
) -> list[schemas.WebhookDelivery]:
    after = read_job_position(cursor)
    list_page = partial(state.webhooks.list, wanted, last=limit + 1, after=after)
    deliveries = await asyncio.to_thread(list_page)
    page = deliveries[:limit]
    if len(deliveries) > limit:
        position, path = page[-1].position, f"{ADMIN_API}/webhooks"
        response.headers["Link"] = describe_link(path, position, state=wanted, limit=limit)
    return [schemas.WebhookDelivery.of(each) for each in page]


@router.post(
    "/webhooks/{job_id}/retry",
    operation_id="retry_webhook",
    summary="Send a job's webhook now, also one that was delivered or given up",
    status_code=204,
)
async def retry_webhook(state: AppState, actor: Actor, job_id: str) -> None:
    """Make a webhook due now, with all its attempts; NotFound where no job that is kept has one."""
    with suppress(ValueError):  # an id that no job can have
        retry = partial(state.webhooks.retry, str(UUID(job_id)), by=actor)
        if await asyncio.to_thread(retry):
            return
    raise NotFound(f"there is no webhook of a job {job_id}")
