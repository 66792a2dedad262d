"""Respond to bytes that never become a request: in the contract's words, logged like a request."""

import time
from collections.abc import Iterable
from http import HTTPStatus

from upscaled.api.errors import error_response
from upscaled.api.middleware import DEFAULT_HEADERS
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.errors import InvalidRequestBody, ServiceError


def render_error(
    error: ServiceError, request_id: str, default_headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    response = error_response(error)
    headers = {
        **{name.decode(): value.decode() for name, value in default_headers},
        **DEFAULT_HEADERS,
        **dict(response.headers),
        "x-request-id": request_id,
        "connection": "close",
    }
    status = HTTPStatus(response.status_code)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(response.body)


def build_record(request_id: str, reason: str) -> AccessRecord:
    """Return the access record of bytes that are no request."""
    record = AccessRecord(request_id, status=400, error_code=InvalidRequestBody.error_code)
    record.error_detail = reason
    record.ended_at_s = time.time()
    return record
