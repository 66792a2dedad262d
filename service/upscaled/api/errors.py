"""The one place where an error becomes an answer: status, headers and the two-key body."""

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.cancellation import ClientGone
from upscaled.api.telemetry.access_log import facts_of
from upscaled.errors import (
    InternalError,
    InvalidRequestBody,
    MethodNotAllowed,
    NotFound,
    RateLimitExceeded,
    ServiceError,
)
from upscaled.state import StateError

# Nobody receives it: the client has gone. The figure is the one nginx logs.
CLIENT_CLOSED_REQUEST = 499


def error_response(error: ServiceError) -> Response:
    """The answer of the contract: `{"error": ..., "error_code": ...}` and nothing else."""
    return JSONResponse(
        {"error": error.public_text, "error_code": error.error_code},
        status_code=error.status,
        headers=error.headers,
    )


async def answer_service_error(request: Request, error: ServiceError) -> Response:
    facts = facts_of(request)
    facts.error_code = error.error_code
    facts.error_detail = error.detail or None
    if isinstance(error, RateLimitExceeded):
        facts.refusal = error.reason
    return error_response(error)


async def answer_framework_error(request: Request, error: HTTPException) -> Response:
    """What Starlette's router raises: 404 and 405. Anything else it might is our own fault."""
    return await answer_service_error(request, _translate(error))


async def answer_state_error(request: Request, error: StateError) -> Response:
    """The stored state does not work, for a reason that is in the log: no bug, and so no trace."""
    return await answer_service_error(request, InternalError(detail=str(error)))


async def answer_nobody(request: Request, error: ClientGone) -> Response:
    facts_of(request).error_code = "client_gone"
    return Response(status_code=CLIENT_CLOSED_REQUEST)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    ServiceError: answer_service_error,
    StateError: answer_state_error,
    HTTPException: answer_framework_error,
    ClientGone: answer_nobody,
}


def _translate(error: HTTPException) -> ServiceError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(", ".join(sorted(methods.split(", "))))
    if HTTPStatus.BAD_REQUEST <= error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return InvalidRequestBody(detail=f"framework: {error.status_code} {error.detail}")
    return InternalError(detail=f"framework: {error.status_code} {error.detail}")
