"""GET /healthz and GET /readyz: alive, and able to work."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.context import Context, context_of
from service.api.facts import facts_of
from service.errors import InternalError


async def answer_health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def answer_readiness(request: Request) -> Response:
    """503 is only ever given here; the body has an error's shape."""
    if await is_ready(context_of(request)):
        return JSONResponse({"status": "ready"})
    facts_of(request).error_code = InternalError.error_code
    return JSONResponse(
        {"error": "Not ready", "error_code": InternalError.error_code}, status_code=503
    )


async def is_ready(context: Context) -> bool:
    """Whether a request sent now by a key that has none under way would succeed.

    A key that uses up its own share is refused; that makes nothing unready for the others.
    """
    has_memory = context.budget.would_take_new_key(context.settings.max_file_bytes)
    return (
        has_memory
        and context.executor.is_ready()
        and await asyncio.to_thread(context.state.is_healthy)
    )
