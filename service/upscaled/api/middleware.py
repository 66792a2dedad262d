"""Wrap every endpoint: close lingering bodies, allow origins, record access, answer 500.

The classes here are pure ASGI: a BaseHTTPMiddleware would hide that a client disconnects.
"""

import asyncio
import logging
import re
from contextlib import suppress
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upscaled.api.errors import error_response
from upscaled.api.telemetry.access_log import AccessRecord, Reporter
from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.state.key_rows import SECRET_PREFIX

# Every response has these unless its endpoint sets others: a result belongs to the client that
# sent the request, and is what its Content-Type says.
DEFAULT_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

# A body this small has mostly arrived with its head: reading it keeps the connection usable.
SMALL_BODY_BYTES: Final = 64 * 1024
SMALL_BODY_S: Final = 0.05
# After an early response at most this much of a larger body is read, and for at most so long.
DISCARD_BYTES: Final = 64 * 1024 * 1024
DISCARD_S: Final = 10.0
DISCARD_IDLE_S: Final = 2.0

# How long a browser may keep the answer to a preflight request; Chromium keeps none longer.
PREFLIGHT_S: Final = 7200

_logger: Final = logging.getLogger(__name__)
# Safe in a header, in a log line and on a command line.
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class LingeringCloseMiddleware:
    """Deliver early responses to clients that are still sending their body.

    A server that closes a connection with unread bytes makes the kernel reset it, and the client
    loses the response. So the response goes out first, then a bounded amount of the body is read
    and discarded, and only then the connection is closed. This is the outermost middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive)
        is_closing = False

        async def send_then_discard(message: Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start":
                await body.read_if_small()
                is_closing = not body.is_ended
                if is_closing:
                    MutableHeaders(scope=message)["Connection"] = "close"
            elif is_closing and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self.app(scope, body.receive, send_then_discard)


class _Body:
    """Body of one request, as far as the application has read it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        # A client that waits for "100 Continue" sends nothing before it; reading would send it.
        self._is_small = (
            length.isascii()
            and length.isdigit()
            and int(length[:10]) <= SMALL_BODY_BYTES
            and "expect" not in headers
        )
        self._receive = receive
        self.is_ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_ended = True
        return message

    async def read_if_small(self) -> None:
        if self._is_small:
            await self._read(SMALL_BODY_BYTES, SMALL_BODY_S)

    async def discard(self) -> None:
        await self._read(DISCARD_BYTES, DISCARD_S)

    async def _read(self, limit_bytes: int, within_s: float) -> None:
        size_bytes = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.is_ended and size_bytes <= limit_bytes:
                    async with asyncio.timeout(DISCARD_IDLE_S):
                        message = await self.receive()
                    size_bytes += len(message.get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def allow_origins(origins: tuple[str, ...]) -> list[Middleware]:
    """Return the middleware that lets web pages of these origins call the service (CORS).

    It stands outside `AccessRecordMiddleware`, whose 500s a page must be able to read too.
    Any header may be sent and read: a request is authorised by its key, never by a cookie.

    origins: https://HOST[:PORT] each, or `*` for all; none: no middleware.
    """
    if not origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=PREFLIGHT_S,
    )
    return [cors]


class AccessRecordMiddleware:
    """Open the access record of each request, and report it once the response is complete.

    Every response gets `X-Request-Id` and `DEFAULT_HEADERS`; an exception that no handler caught
    becomes the contract's 500.
    """

    def __init__(self, app: ASGIApp, reporter: Reporter) -> None:
        self.app = app
        self.reporter = reporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = AccessRecord(
            choose_request_id(headers.get("x-request-id"), headers.get("x-api-key")),
            # Never a method that a client made up.
            method=scope["method"] if scope["method"] in _METHODS else "other",
            traceparent=headers.get("traceparent"),
            tracestate=headers.get("tracestate"),
        )
        scope.setdefault("state", {})["access_record"] = record

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["X-Request-Id"] = record.request_id
                for name, value in DEFAULT_HEADERS.items():
                    sent.setdefault(name, value)
            await send(message)

        self.reporter.in_flight += 1
        try:
            await self._respond(scope, receive, send_with_headers, record)
        finally:
            self.reporter.in_flight -= 1
            if (route := scope.get("route")) is not None:
                record.route = route.path.rstrip("/") or "/"
            record.end()
            self.reporter.add(record)

    async def _respond(
        self, scope: Scope, receive: Receive, send: Send, record: AccessRecord
    ) -> None:
        try:
            await self.app(scope, receive, send)
            return
        except asyncio.CancelledError:
            # The shutdown's grace is over; uvicorn would answer by itself, in plain text.
            if record.status is None:
                record.error_code = InternalError.error_code
                await error_response(InternalError())(scope, receive, send)
            raise
        except Exception:
            extra = event("request_failed", request_id=record.request_id)
            _logger.exception("unhandled exception in a request", extra=extra)
            record.error_code = InternalError.error_code
            if record.status is not None:  # half sent: the connection can only be cut
                raise
        await error_response(InternalError())(scope, receive, send)


def choose_request_id(sent: str | None, api_key: str | None = None) -> str:
    """Return the client's own id where it is safe and no secret, else a new UUID.

    Ids are logged, so none may be an API key: neither one of ours, which has a known prefix, nor
    the one that this request was sent with.
    """
    if sent is None or not _SAFE_ID.fullmatch(sent) or SECRET_PREFIX in sent.lower():
        return str(uuid4())
    if api_key is not None and (key := api_key.strip()) and key in sent:
        return str(uuid4())
    return sent
