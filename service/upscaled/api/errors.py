"""Turn exceptions into responses: status, headers and the two-key body."""

from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled import errors
from upscaled.api.cancellation import ClientDisconnected
from upscaled.api.telemetry.access_log import CLIENT_CLOSED_REQUEST, record_of
from upscaled.state import StateError


def error_response(error: errors.ServiceError) -> Response:
    """Return the contract's response: `{"error": ..., "error_code": ...}` and nothing else."""
    return JSONResponse(
        {"error": error.public_text, "error_code": error.error_code},
        status_code=error.status,
        headers=error.headers,
    )


async def handle_error(request: Request, error: Exception) -> Response:
    """Respond with the contract's error, and record it."""
    record = record_of(request.scope)
    if isinstance(error, ClientDisconnected):
        record.error_code = "client_gone"
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # sent to a closed connection
    service_error = _translate(request, error)
    record.error_code = service_error.error_code
    record.error_detail = _explain(service_error)
    if isinstance(service_error, errors.RateLimitExceeded):
        record.refusal = service_error.reason
    return error_response(service_error)


EXCEPTION_HANDLERS: Final[dict[Any, Any]] = dict.fromkeys(
    (errors.ServiceError, StateError, HTTPException, RequestValidationError, ClientDisconnected),
    handle_error,
)


def _explain(error: errors.ServiceError) -> str | None:
    """Return what the log says of an error beside its code: None where that says everything.

    An operator who is asked about a request has its line in the log, and not what was answered: one
    code serves a scale of 3, a reused `Idempotency-Key` and a header sent twice.
    """
    is_specific = error.public_text != error.default_text
    return error.detail or (error.public_text if is_specific else None)


def _translate(request: Request, error: Exception) -> errors.ServiceError:
    """Return the error of the contract for one of the state or of the framework."""
    match error:
        case errors.ServiceError():
            return error
        case HTTPException():
            return _translate_http(request, error)
        case RequestValidationError():  # FastAPI's own 422 is no part of the contract
            detail = f"framework: {[each['loc'] for each in error.errors()]}"
            return errors.InvalidRequestBody(detail=detail)
        case _:  # the stored state does not work; the reason is in the log
            return errors.InternalError(detail=str(error))


def _translate_http(request: Request, error: HTTPException) -> errors.ServiceError:
    """Translate what the router raises: 404 and 405. Any other status is a bug of ours."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return errors.NotFound()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first matching route alone.
        path, routes = request.scope["path"], request.app.state.routes
        matching = [route.methods for route in routes if route.path_regex.match(path)]
        return errors.MethodNotAllowed(", ".join(sorted(set().union(*matching))))
    if HTTPStatus.BAD_REQUEST <= error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.InvalidRequestBody(detail=f"framework: {error.status_code} {error.detail}")
    return errors.InternalError(detail=f"framework: {error.status_code} {error.detail}")
