"""API keys and their credits over HTTP: list, make, change, rotate, revoke; add, take, move."""

import asyncio
import time
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from upscaled.api import schemas
from upscaled.api.admin.authentication import ADMIN_API, ADMIN_KEY
from upscaled.api.admin.schemas import (
    HOUR_S,
    Balance,
    CreditChange,
    CreditTransfer,
    Key,
    KeyChange,
    NewKey,
    Rotation,
    Secret,
    to_seconds,
)
from upscaled.api.dependencies import AppContext
from upscaled.api.paging import describe_link, read_row_id
from upscaled.errors import InvalidParameter, NotFound
from upscaled.state import RateLimit, State

ERRORS: Final = schemas.KEY_ERRORS | schemas.describe_errors(InvalidParameter, NotFound)

NEXT_PAGE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'The next page, as `<URL>; rel="next"`; absent at the end',
                "schema": {"type": "string"},
            }
        }
    }
}
"""The header of a page of a list, for OpenAPI."""

MAX_PAGE_ROWS: Final = 1_000

router = APIRouter(prefix=ADMIN_API, dependencies=[ADMIN_KEY], responses=ERRORS)


async def _get_actor(request: Request) -> str:
    return f"admin:{request.scope['state']['admin_name']}"


async def _get_state(context: AppContext) -> State:
    return context.state


Actor = Annotated[str, Depends(_get_actor)]
"""The administrator, for the audit log."""
AppState = Annotated[State, Depends(_get_state)]


KeyLimit = Annotated[
    int | None, Query(ge=1, le=MAX_PAGE_ROWS, description="Most keys of a page; by default all")
]
Cursor = Annotated[str, Query(description="`cursor` of the `Link` to the next page")]


@router.get(
    "/keys",
    operation_id="list_keys",
    summary="Every key ever made, oldest first",
    responses=NEXT_PAGE,
)
async def list_keys(
    response: Response, state: AppState, limit: KeyLimit = None, cursor: Cursor = ""
) -> list[Key]:
    """List keys; without `limit`, all of them."""
    fetched = None if limit is None else limit + 1
    list_page = partial(state.keys.list, after_id=read_row_id(cursor), first=fetched)
    keys = await asyncio.to_thread(list_page)
    page = keys[:limit]
    if len(keys) > len(page):
        response.headers["Link"] = describe_link(f"{ADMIN_API}/keys", [page[-1].id], limit=limit)
    return [Key.of(key, time.time()) for key in page]


@router.post("/keys", operation_id="create_key", summary="Make a key", status_code=201)
async def create_key(state: AppState, actor: Actor, new: NewKey) -> Secret:
    create = partial(
        state.keys.create,
        new.name,
        credits=new.credits,
        rate=RateLimit(new.rate, new.burst),
        expires_at_s=to_seconds(new.expires_at),
        scopes=None if new.scopes is None else frozenset(new.scopes),
        by=actor,
    )
    return Secret(name=new.name, secret=await asyncio.to_thread(create))


@router.patch(
    "/keys/{name}",
    operation_id="change_key",
    summary="Change the name, rate, burst, end or scopes of a key, all or nothing",
    description="A key that has expired is active again with a later end, or with none.",
)
async def change_key(state: AppState, actor: Actor, name: str, change: KeyChange) -> Key:
    changed = await asyncio.to_thread(state.keys.change, name, change.changes(), by=actor)
    return Key.of(changed, time.time())


@router.post(
    "/keys/{name}/rotate",
    operation_id="rotate_key",
    summary="Give a key a new secret; the one it has stays valid for a while",
)
async def rotate_key(state: AppState, actor: Actor, name: str, rotation: Rotation) -> Secret:
    rotate = partial(state.keys.rotate, name, keep_s=rotation.keep_hours * HOUR_S, by=actor)
    return Secret(name=name, secret=await asyncio.to_thread(rotate))


@router.delete(
    "/keys/{name}", operation_id="revoke_key", summary="End a key at once", status_code=204
)
async def revoke_key(state: AppState, actor: Actor, name: str) -> None:
    await asyncio.to_thread(state.keys.revoke, name, by=actor)


@router.post(
    "/keys/{name}/credits/add", operation_id="add_credits", summary="Give credits to a key"
)
async def add_credits(state: AppState, actor: Actor, name: str, change: CreditChange) -> Balance:
    balance = await asyncio.to_thread(state.credits.add, name, change.credits, by=actor)
    return Balance(name=name, credits=balance)


@router.post(
    "/keys/{name}/credits/take",
    operation_id="take_credits",
    summary="Take credits from a key, which must have them",
)
async def take_credits(state: AppState, actor: Actor, name: str, change: CreditChange) -> Balance:
    balance = await asyncio.to_thread(state.credits.take, name, change.credits, by=actor)
    return Balance(name=name, credits=balance)


@router.post(
    "/keys/{name}/credits/transfer",
    operation_id="transfer_credits",
    summary="Move credits to another key",
)
async def transfer_credits(
    state: AppState, actor: Actor, name: str, transfer: CreditTransfer
) -> list[Balance]:
    move = partial(state.credits.transfer, name, transfer.to, transfer.credits, by=actor)
    balances = await asyncio.to_thread(move)
    names = (name, transfer.to)
    return [Balance(name=each, credits=left) for each, left in zip(names, balances, strict=True)]
