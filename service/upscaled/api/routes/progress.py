"""GET /v1/progress/{request_id}: server-sent events of one's own request, while it runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response, StreamingResponse

from upscaled.api import progress as tracking
from upscaled.api import schemas
from upscaled.api.dependencies import AppContext, WatchingKey
from upscaled.errors import NotFound

PROGRESS_PATH: Final = "/v1/progress/{request_id}"
KEEP_ALIVE_S: Final = 15.0
LEAST_INTERVAL_S: Final = 0.1

_MEDIA_TYPE: Final = "text/event-stream"
# nginx would hold the events back until the request is over.
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

router = APIRouter()


Events = AsyncIterator[bytes]


async def _watch(context: AppContext, key: WatchingKey, request_id: str) -> AsyncIterator[Events]:
    """Count a watcher of the key until the response is sent; find the events of its request.

    A request that is neither here nor at another front end is waited for, then looked for again.
    """
    with context.progress.count_watcher(key.id):
        if context.progress.get(key.id, request_id) is None:
            async with context.relay.open(key.id, request_id) as events:
                if events is not None:
                    yield events
                    return
        if progress := await context.progress.find(key.id, request_id):
            yield write_events(progress)
            return
        async with context.relay.open(key.id, request_id) as events:
            if events is None:
                raise NotFound
            yield events


Watched = Annotated[Events, Depends(_watch)]


@router.head(PROGRESS_PATH, include_in_schema=False)
async def head_progress(events: Watched) -> Response:
    """Return the headers of the events."""
    return Response(headers=_HEADERS, media_type=_MEDIA_TYPE)


@router.get(
    PROGRESS_PATH,
    operation_id="watch_progress",
    summary="Watch the progress of a request of this API key",
    description="Server-sent events, for a request that was sent with an `X-Request-Id` of the "
    "client's own: `progress` with `stage` (receive, queue, network, encode), `tiles_done`, "
    "`tiles_total` (null until known) and `remaining_s` (an estimate for the network, from its "
    "begin on; null before), then one `end` with `error_code` (null after a success). An id "
    "that is not in use, that belongs to another key or whose request is over is not found; one "
    f"that is not known yet is waited for, {tracking.ARRIVAL_WAIT_S:g} s. Does not count against "
    f"the rate; at most {tracking.MAX_WATCHERS_PER_KEY} at once for each key.",
    response_class=Response,
    response_description="Events until the request ends",
    responses={
        200: {"content": {_MEDIA_TYPE: {"schema": {"type": "string"}}}},
        **schemas.KEY_ERRORS,
        **schemas.describe_errors(NotFound),
    },
)
async def watch_progress(events: Watched) -> Response:
    """Stream `progress` events, then one `end`. Does not count against the key's rate."""
    return StreamingResponse(events, headers=_HEADERS, media_type=_MEDIA_TYPE)


@router.get(tracking.RELAY_PATH, include_in_schema=False)
async def relay_progress(
    context: AppContext, token: Annotated[str, Header(alias=tracking.TOKEN_HEADER)] = ""
) -> Response:
    """Stream the events of a request to a front end that has its token from the database."""
    progress = context.relay.find_announced(token)
    if progress is None:
        raise NotFound
    return StreamingResponse(write_events(progress), headers=_HEADERS, media_type=_MEDIA_TYPE)


async def write_events(progress: tracking.Progress) -> AsyncIterator[bytes]:
    """Yield the newest step, at most ten times a second, and comments while there is none."""
    step = progress.step
    yield _format("progress", asdict(step))
    while not (progress.is_ended and progress.step is step):
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await progress.wait_beyond(step)
        except TimeoutError:
            yield b":\n\n"
        if progress.step is not step:
            step = progress.step
            yield _format("progress", asdict(step))
            await asyncio.sleep(LEAST_INTERVAL_S)
    yield _format("end", {"error_code": progress.error_code})


def _format(event: str, data: dict[str, Any]) -> bytes:
    rounded = {
        name: round(value, 2) if isinstance(value, float) else value for name, value in data.items()
    }
    return f"event: {event}\ndata: {json.dumps(rounded)}\n\n".encode()
