"""Run the application for one request: uvicorn's ASGI cycle, its flow control and the scope."""

import asyncio
import logging
from typing import Any, Final, Protocol
from urllib.parse import unquote

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseStartEvent,
    HTTPScope,
    Scope,
)
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from upscaled.api.memory import OUTPUT_EXTENSION
from upscaled.api.protocol.head import RequestHead
from upscaled.api.protocol.output import ANSWER_AHEAD, CHUNK_AHEAD, Output

# The largest body that its head waits for, such as that of a refusal or of a result's URL.
WRITTEN_WITH_HEAD_BYTES: Final = 16 * 1024

_logger: Final = logging.getLogger(__name__)


class CycleConnection(Protocol):
    """Connection that a cycle belongs to."""

    def pump(self) -> None:
        """Parse what has arrived."""

    def note_answered(self) -> None:
        """Note that the response is written, though the request's body may go on."""

    def end_request(self) -> None:
        """Go on with the next request, both body and response being complete."""


class HttpFlowControl(FlowControl):
    """Flow control: writing waits for the client, and reading the body parses more of it."""

    def __init__(self, transport: asyncio.Transport, connection: CycleConnection) -> None:
        super().__init__(transport)
        self._connection = connection
        self._is_pump_due = False

    def resume_reading(self) -> None:
        self.pump_soon()

    def pump_soon(self) -> None:
        """Parse more of what has arrived, once the event loop is free."""
        if not self._is_pump_due:
            self._is_pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pump_due = False
        self._connection.pump()


class Cycle(RequestResponseCycle):
    def __init__(
        self,
        head: RequestHead,
        scope: HTTPScope,
        connection: CycleConnection,
        output: Output,
        flow: HttpFlowControl,
        default_headers: list[tuple[bytes, bytes]],
    ) -> None:
        super().__init__(
            scope=scope,
            transport=output,  # type: ignore[arg-type]
            flow=flow,
            logger=_logger,
            access_logger=_logger,
            access_log=False,
            default_headers=default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keeps_alive,
            on_response=connection.end_request,
        )
        self._connection = connection
        self._output = output

    @property
    def ahead(self) -> bytes:
        """Return the bytes that may be sent ahead of what comes next, to probe the client."""
        if not self.response_started:
            return ANSWER_AHEAD
        return CHUNK_AHEAD if self.chunked_encoding else b""

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and _is_short(message):
            self._output.cork()
        await super().send(message)
        is_body = message["type"] == "http.response.body"
        if is_body:
            self._output.uncork()
        if is_body and self.chunked_encoding is False and not self.expected_content_length:
            self._connection.note_answered()

    async def run_asgi(self, app: ASGI3Application) -> None:
        async def run_unless_cut_off(
            scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
        ) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                # The server ends before a slow reader does. That is no error of the application.
                self.disconnected = True
                self.transport.close()

        await super().run_asgi(run_unless_cut_off)

    def disconnect(self) -> None:
        """Report to the application that its client has left, unless its response is complete."""
        self.disconnected = not self.response_complete
        self.message_event.set()


def _is_short(start: HTTPResponseStartEvent) -> bool:
    """Return whether the head of a response is to wait for its body, to be written with it.

    A client that sends its body still may stop at the head of a refusal; curl 7.88 ends its HTTP/2
    stream there, and nginx then drops a body that it has not read yet. Streams have no length, and
    their heads leave at once.
    """
    length = dict(start.get("headers", ())).get(b"content-length", b"")
    return length.isdigit() and int(length) <= WRITTEN_WITH_HEAD_BYTES


def build_scope(
    head: RequestHead, transport: asyncio.Transport, app_state: dict[str, Any], output: Output
) -> HTTPScope:
    """Return the ASGI scope of a request."""
    raw_path, _, query = head.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "https" if transport.get_extra_info("ssl_object") else "http",
        "method": head.method,
        "root_path": "",
        "path": unquote(raw_path.decode("latin-1"), "utf-8"),
        "raw_path": raw_path,
        "query_string": query,
        "headers": head.headers,
        "state": app_state.copy(),
        "extensions": {OUTPUT_EXTENSION: {"output": output}},
    }
