"""GET /healthz and GET /readyz: alive, and able to work."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.context import Context, context_of
from upscaled.api.facts import facts_of
from upscaled.errors import InternalError


async def answer_health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def answer_readiness(request: Request) -> Response:
    """503 is only ever given here; the body has an error's shape, the reason is in the log."""
    trouble = find_trouble(context_of(request))
    if not trouble:
        return JSONResponse({"status": "ready"})
    facts_of(request).error_code = InternalError.error_code
    facts_of(request).error_detail = trouble
    return JSONResponse(
        {"error": "Not ready", "error_code": InternalError.error_code}, status_code=503
    )


def find_trouble(context: Context) -> str:
    """Why a request sent now by a key that has none under way would fail; empty where it would not.

    A key that uses up its own share is refused; that makes nothing unready for the others.
    """
    if not context.executor.is_ready():
        return "no worker is ready"
    if not context.budget.would_take_new_key(context.settings.max_file_bytes):
        return "no memory is left for a further upload"
    return context.probe.trouble
