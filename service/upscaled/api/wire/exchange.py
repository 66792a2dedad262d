"""One exchange from its first byte to its last: its id, whom it is told to, and the last resort."""

import asyncio
import logging
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upscaled.api.facts import Exchange, Facts
from upscaled.api.wire.default_headers import DEFAULT_HEADERS
from upscaled.api.wire.error_responses import error_response
from upscaled.api.wire.report import Report
from upscaled.api.wire.request_id import choose_request_id
from upscaled.errors import InternalError
from upscaled.logs import event

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
