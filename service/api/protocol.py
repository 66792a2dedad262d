"""uvicorn's HTTP protocol, its last holes closed.

uvicorn answers a request that is no HTTP by itself, in plain text; and it waits for ever for a
request's head, however long it grows. `uvicorn.Config(app, http=ContractProtocol)`.
"""

import asyncio
from typing import Final
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.error_responses import error_response
from service.errors import InvalidRequestBody

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 30.0


class ContractProtocol(HttpToolsProtocol):
    """Refuses in the contract's words; a head is at most 64 KB long and 30 s in coming."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is None:
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("the request's head is too long")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; a request whose answer has begun is only cut off."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_render_refusal(msg))
        self.transport.close()

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


def _render_refusal(reason: str) -> bytes:
    response = error_response(InvalidRequestBody("Invalid HTTP request", detail=reason))
    headers = [
        *response.raw_headers,
        (b"x-request-id", str(uuid4()).encode()),
        (b"connection", b"close"),
    ]
    lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
