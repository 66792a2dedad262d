"""uvicorn's HTTP protocol, its last holes closed: `uvicorn.Config(app, http=ContractProtocol)`.

uvicorn answers a request that is no HTTP by itself, in plain text, and takes one whose method its
parser does not know for no HTTP; waits for ever for a request's head, however long it grows; and
loses the body of a request that offers an upgrade, as Java's HttpClient does by default
(`Upgrade: h2c`).
"""

import asyncio
import re
import time
from typing import Final
from uuid import uuid4

import httptools
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.facts import Exchange, Facts
from service.api.wire.error_responses import error_response
from service.errors import InvalidRequestBody

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 30.0
_REQUEST_LINE: Final = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}) (/[!-~]*) HTTP/1\.[01]\r\n")
_UPGRADE_HEADERS: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})


class ContractProtocol(HttpToolsProtocol):
    """Refuses in the contract's words, declines every upgrade and goes on with the request.

    A head is at most 64 KB long and 30 s in coming.
    """

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _is_done_reading = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_done_reading:
            return
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.send_400_response(str(error))
        if self._head_timer is None:
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("the request's head is too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """White space around a value is no part of it (RFC 9110, 5.5); the parser leaves what
        follows."""
        super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._end_head()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; a request whose answer has begun is only cut off."""
        is_between = self.cycle is None or self.cycle.response_complete
        if is_between or not self.cycle.response_started:
            request_id = str(uuid4())
            self.transport.write(_render_refusal(request_id))
            if is_between:  # else the request that broke off is told of by itself
                self._report(request_id, msg)
        self.transport.close()

    def _report(self, request_id: str, reason: str) -> None:
        """What never became a request is counted and logged like one."""
        app = self.config.app
        if not isinstance(app, FastAPI):
            return
        code = InvalidRequestBody.error_code
        facts = Facts(request_id, error_code=code, error_detail=reason)
        begun_s, ended_at_s = time.perf_counter(), time.time()
        refusal = Exchange("other", "other", 400, begun_s, 0.0, ended_at_s, None, None, facts)
        app.state.report.add(refusal)

    def _feed(self, data: bytes) -> None:
        """The parser takes what follows an offered upgrade for another protocol, and stops. A new
        one is given the same request without the offer, and the rest."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserError("this is no proxy") from None
                data = self._render_head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserInvalidMethodError:
                line = _REQUEST_LINE.match(data)
                if line is None or not (self.cycle is None or self.cycle.response_complete):
                    raise
                self._refuse_method(*line.groups())
                return
            else:
                return

    def _refuse_method(self, method: bytes, url: bytes) -> None:
        """Have the router refuse what the parser does not know: a new one is given a method that no
        route has. Nothing else of the request is read; the connection ends with the answer."""
        self._is_done_reading = True
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"DELETE " + url + b" HTTP/1.1\r\nConnection: close\r\n\r\n")
        self.scope["method"] = method.decode()  # the request's task has not begun

    def _render_head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name not in _UPGRADE_HEADERS:
                lines.append(name + b": " + value)
            elif name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def _await_head(self) -> None:
        self._end_head()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._await_head()


def _render_refusal(request_id: str) -> bytes:
    response = error_response(InvalidRequestBody("Invalid HTTP request"))
    headers = [
        *response.raw_headers,
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
