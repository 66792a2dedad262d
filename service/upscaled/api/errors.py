"""The one place where an exception becomes a response: status, headers and the two-key body."""

from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.cancellation import ClientDisconnected
from upscaled.api.telemetry.access_log import CLIENT_CLOSED_REQUEST, record_of
from upscaled.errors import (
    InternalError,
    InvalidRequestBody,
    MethodNotAllowed,
    NotFound,
    RateLimitExceeded,
    ServiceError,
)
from upscaled.state import StateError


def error_response(error: ServiceError) -> Response:
    """Return the contract's response: `{"error": ..., "error_code": ...}` and nothing else."""
    return JSONResponse(
        {"error": error.public_text, "error_code": error.error_code},
        status_code=error.status,
        headers=error.headers,
    )


async def handle_service_error(request: Request, error: ServiceError) -> Response:
    """Respond with an error of ours, and record it."""
    record = record_of(request.scope)
    record.error_code = error.error_code
    record.error_detail = error.detail or None
    if isinstance(error, RateLimitExceeded):
        record.refusal = error.reason
    return error_response(error)


async def handle_framework_error(request: Request, error: HTTPException) -> Response:
    """Respond to what the router raises: 404 and 405. Any other status is a bug of ours."""
    return await handle_service_error(request, _translate(error))


async def handle_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Respond to parameters that FastAPI rejects; its own 422 is no part of the contract."""
    detail = f"framework: {[each['loc'] for each in error.errors()]}"
    return await handle_service_error(request, InvalidRequestBody(detail=detail))


async def handle_state_error(request: Request, error: StateError) -> Response:
    """Respond when the stored state does not work. The reason is in the log: a trace is not."""
    return await handle_service_error(request, InternalError(detail=str(error)))


async def handle_disconnect(request: Request, error: ClientDisconnected) -> Response:
    """Record that the client has disconnected; the response is sent into the void."""
    record_of(request.scope).error_code = "client_gone"
    return Response(status_code=CLIENT_CLOSED_REQUEST)


EXCEPTION_HANDLERS: Final[dict[Any, Any]] = {
    ServiceError: handle_service_error,
    StateError: handle_state_error,
    HTTPException: handle_framework_error,
    RequestValidationError: handle_validation_error,
    ClientDisconnected: handle_disconnect,
}


def _translate(error: HTTPException) -> ServiceError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = set((error.headers or {}).get("Allow", "").split(", "))
        if methods & {"GET", "HEAD"}:  # two routes; the router names the first alone
            methods |= {"GET", "HEAD"}
        return MethodNotAllowed(", ".join(sorted(methods)))
    if HTTPStatus.BAD_REQUEST <= error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return InvalidRequestBody(detail=f"framework: {error.status_code} {error.detail}")
    return InternalError(detail=f"framework: {error.status_code} {error.detail}")
