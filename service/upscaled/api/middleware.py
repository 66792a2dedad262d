"""One exchange from its first byte to its last: its id, whom it is told to, and the last resort."""

import asyncio
import logging
import re
import time
from contextlib import suppress
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upscaled.api.errors import error_response
from upscaled.api.telemetry.access_log import Exchange, Facts, Report
from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.state.keys import SECRET_PREFIX

_logger: Final = logging.getLogger(__name__)


class ExchangeMiddleware:
    """Puts `X-Request-Id` on every answer, turns what nobody caught into the 500 of the contract,
    and reports it at the end. Pure ASGI: a BaseHTTPMiddleware would hide disconnects."""

    def __init__(self, app: ASGIApp, report: Report) -> None:
        self.app = app
        self.report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun_s = time.perf_counter()
        headers = Headers(scope=scope)
        facts = Facts(choose_request_id(headers.get("x-request-id"), headers.get("x-api-key")))
        scope.setdefault("state", {})["facts"] = facts
        answer = _Answer(send, facts.request_id)
        self.report.under_way += 1
        try:
            await self._answer(scope, receive, answer, facts)
        finally:
            self.report.under_way -= 1
            exchange = Exchange(
                method=_method_name(scope),
                route=_route_name(scope),
                status=answer.status,
                begun_s=begun_s,
                seconds=time.perf_counter() - begun_s,
                ended_at_s=time.time(),
                traceparent=headers.get("traceparent"),
                tracestate=headers.get("tracestate"),
                facts=facts,
            )
            self.report.add(exchange)

    async def _answer(
        self, scope: Scope, receive: Receive, answer: "_Answer", facts: Facts
    ) -> None:
        try:
            await self.app(scope, receive, answer.send)
            return
        except asyncio.CancelledError:
            # The server has waited long enough. It would answer by itself, in plain text.
            if answer.status is None:
                facts.error_code = InternalError.error_code
                await error_response(InternalError())(scope, receive, answer.send)
            raise
        except Exception:
            told = event("request_failed", request_id=facts.request_id)
            _logger.exception("nobody foresaw this", extra=told)
            facts.error_code = InternalError.error_code
            if answer.status is not None:  # half sent: only cutting it off is left
                raise
        await error_response(InternalError())(scope, receive, answer.send)


class _Answer:
    """What is being sent: given the request's id, and its status remembered."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            for name, value in DEFAULT_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _method_name(scope: Scope) -> str:
    """A method that HTTP knows: never one that a client made up."""
    method: str = scope["method"]
    return method if method in _METHODS else "other"


def _route_name(scope: Scope) -> str:
    """The route's template: never a path a client made up, which would grow without end."""
    endpoint = scope.get("endpoint")
    routes = (route for route in scope["app"].routes if isinstance(route, Route))
    return next((route.path for route in routes if route.endpoint is endpoint), "other")


# Safe in a header, in a log line and on a command line.
_SANE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def choose_request_id(sent: str | None, api_key: str | None = None) -> str:
    """The client's own id where it is sane and no secret, else a new uuid4.

    Ids are logged, so none may be an API key: neither one of ours, known by its prefix, nor
    whatever this request was sent with (`api_key`).
    """
    if sent is None or not _SANE.fullmatch(sent) or SECRET_PREFIX in sent.lower():
        return str(uuid4())
    if api_key is not None and (key := api_key.strip()) and key in sent:
        return str(uuid4())
    return sent


# A body this small has mostly arrived with its head: reading it keeps the connection usable.
SMALL_BODY_BYTES: Final = 64 * 1024
SMALL_BODY_S: Final = 0.05

DISCARD_BYTES: Final = 64 * 1024 * 1024
DISCARD_S: Final = 10.0
DISCARD_IDLE_S: Final = 2.0


class UnreadBodyMiddleware:
    """Outermost: whatever an inner part answers early reaches the client."""

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
    """The request body as far as it has been read."""

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
        if self._is_small and not self.is_ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(SMALL_BODY_S):
                    await self._read(SMALL_BODY_BYTES)

    async def discard(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                await self._read(DISCARD_BYTES)

    async def _read(self, limit_bytes: int) -> None:
        size_bytes = 0
        while not self.is_ended and size_bytes <= limit_bytes:
            async with asyncio.timeout(DISCARD_IDLE_S):
                message = await self.receive()
            size_bytes += len(message.get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


# What is answered belongs to who asked, and is what its Content-Type says.
DEFAULT_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
