"""One exchange from its first byte to its last: id, log line, figures, and the last resort."""

import asyncio
import json
import logging
import time
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.facts import Facts
from service.api.metrics import Metrics
from service.api.wire.error_responses import error_response
from service.api.wire.request_id import choose_request_id
from service.errors import InternalError

_logger: Final = logging.getLogger(__name__)


class ExchangeMiddleware:
    """Puts `X-Request-Id` on every answer, turns what nobody caught into the 500 of the contract,
    and leaves one JSON log line. Pure ASGI: a BaseHTTPMiddleware would hide disconnects."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        facts = Facts(choose_request_id(Headers(scope=scope).get("x-request-id")))
        scope.setdefault("state", {})["facts"] = facts
        answer = _Answer(send, facts.request_id)
        try:
            with self.metrics.open_requests.track_inprogress():
                await self._answer(scope, receive, answer, facts)
        finally:
            self._report(scope, facts, answer.status, time.perf_counter() - started)

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
            _logger.exception("request %s failed", facts.request_id)
            facts.error_code = InternalError.error_code
            if answer.status is not None:  # half sent: only cutting it off is left
                raise
        await error_response(InternalError())(scope, receive, answer.send)

    def _report(self, scope: Scope, facts: Facts, status: int | None, seconds: float) -> None:
        route = _route_name(scope)
        self.metrics.requests.labels(route, str(status or 0), facts.error_code or "").inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "event": "request",
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
        }
        _logger.info("%s", json.dumps(fields | facts.as_log_fields()))


class _Answer:
    """What is being sent: given the request's id, and its status remembered."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-Id"] = self._request_id
        await self._send(message)


def _route_name(scope: Scope) -> str:
    """The route's template: never a path a client made up, which would grow without end."""
    endpoint = scope.get("endpoint")
    routes = (route for route in scope["app"].routes if isinstance(route, Route))
    return next((route.path for route in routes if route.endpoint is endpoint), "other")
