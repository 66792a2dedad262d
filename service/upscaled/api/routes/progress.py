"""GET /v1/progress/{request_id}: server-sent events of one's own request, while it runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from upscaled.api.auth import identify
from upscaled.api.context import context_of
from upscaled.api.progress import Progress
from upscaled.errors import NotFound

PROGRESS_PATH: Final = "/v1/progress/"
KEEP_ALIVE_S: Final = 15.0
LEAST_INTERVAL_S: Final = 0.1

_MEDIA_TYPE: Final = "text/event-stream"
# nginx would hold the events back until the request is over.
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def answer_progress(request: Request) -> Response:
    """`progress` events, then one `end`. It takes nothing from the key's rate.

    Raises:
        NotFound: the key has no such request; nobody learns whether another key has.
        RateLimitExceeded: the key watches too many requests at once.
    """
    board = context_of(request).board
    api_key = await identify(request)
    with ExitStack() as stack:
        stack.enter_context(board.admit_watcher(api_key.id))
        progress = await board.find(api_key.id, request.path_params["request_id"])
        if progress is None:
            raise NotFound
        if request.method == "HEAD":
            return Response(headers=_HEADERS, media_type=_MEDIA_TYPE)
        return _EventStream(progress, stack.pop_all())


class _EventStream(StreamingResponse):
    """`place`, among the key's watchers, is given up at the end."""

    def __init__(self, progress: Progress, place: ExitStack) -> None:
        super().__init__(write_events(progress), headers=_HEADERS, media_type=_MEDIA_TYPE)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


async def write_events(progress: Progress) -> AsyncIterator[bytes]:
    """What is on the wire: the newest step at most ten times a second, and a comment in silence."""
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
