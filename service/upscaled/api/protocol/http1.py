"""Serve one HTTP/1.1 connection: `uvicorn.Config(app, http=ContractProtocol)`.

uvicorn brings the loop, the life of the server and the ASGI cycle of one request. What a client may
send and how long it may take is decided here, since uvicorn's own protocols count nothing before
their parsers, know no deadline for writing and drop a client that shuts its sending side:

- one request at a time: what follows it waits, in a bounded buffer, until it is answered;
- heads, chunk lines and trailers are bounded (`upscaled.api.protocol.head`, `.framing`);
- a head has 30 s to come, a body and an answer must move on (`check`);
- every refusal is in the contract's words.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote
from uuid import uuid4

from starlette.responses import Response
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from upscaled.api.errors import error_response
from upscaled.api.memory import OUTPUT_EXTENSION
from upscaled.api.middleware import DEFAULT_HEADERS
from upscaled.api.protocol.framing import BodyReader, read_body_of
from upscaled.api.protocol.head import HeadReader, MalformedRequest, RequestHead
from upscaled.api.protocol.output import ANSWER_AHEAD, CHUNK_AHEAD, Output
from upscaled.api.protocol.registry import Connections
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.errors import InvalidRequestBody, RateLimitExceeded

HEAD_TIMEOUT_S: Final = 30.0
# Slower than this, as an average over the time, a body is given up. `UPSCALED_BODY_TIMEOUT_S`
# bounds the whole.
BODY_STALL_S: Final = 30.0
MIN_BODY_BYTES_PER_S: Final = 256
# Of the body at hand, and of requests that follow it: more is left in the socket.
BODY_BUFFER_BYTES: Final = 64 * 1024
READ_AHEAD_BYTES: Final = 64 * 1024
# After a refusal the client's bytes are read and dropped for a moment: closing on unread bytes
# resets the connection, and the client loses the answer.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 2 * 1024 * 1024
_RETRY_AFTER_S: Final = 1

_logger: Final = logging.getLogger(__name__)


class ContractProtocol(asyncio.Protocol):
    """The server's side of one connection: reads requests, runs the application, sends answers."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._app: ASGI3Application = config.loaded_app
        self._app_state = app_state
        self._loop = _loop or asyncio.get_event_loop()
        self._server_state = server_state
        self._registry: Connections = config.app.state.connections  # type: ignore[union-attr]
        self._transport: asyncio.Transport
        self._output: Output
        self._flow: _Flow
        self._unread = bytearray()
        self._head = HeadReader()
        self._body: BodyReader | None = None  # of the request at hand, None once it was read
        self._cycle: _Cycle | None = None  # of the request that is being answered
        self._is_reading_paused = False
        self._is_pump_due = False
        self._has_input_ended = False
        self._is_lingering = False
        self._deadline_s = 0.0
        self._body_bytes = 0  # since `_body_mark_s`
        self._body_mark_s = 0.0
        self._lingered_bytes = 0

    # What uvicorn and the loop call.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._output = Output(transport)
        self._flow = _Flow(transport, self._pump_soon)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._client = get_remote_addr(transport)
        self._deadline_s = time.monotonic() + HEAD_TIMEOUT_S
        if not self._registry.admit(self, self._client[0] if self._client else ""):
            self._write_last(error_response(RateLimitExceeded(_RETRY_AFTER_S)), str(uuid4()))
            self._output.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.remove(self)
        self._server_state.connections.discard(self)
        self._disconnect_cycle()
        self._flow.resume_writing()
        self._unread.clear()

    def data_received(self, data: bytes) -> None:
        if self._is_lingering or self._transport.is_closing():
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES:
                self._output.abort()
            return
        if not self._unread and self._body is None and self._is_between_requests():
            self._deadline_s = min(self._deadline_s, time.monotonic() + HEAD_TIMEOUT_S)
        self._unread += data
        self._pump()

    def eof_received(self) -> bool:
        """Note that the client has shut its sending side.

        A client whose request is complete still gets its answer; `check` finds out whether it has
        disconnected altogether.
        """
        self._has_input_ended = True
        self._output.expect_silence(time.monotonic())
        self._settle_end_of_input()
        is_waiting = bool(self._unread) or not self._is_between_requests()
        return is_waiting and not self._is_lingering

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()

    def shutdown(self) -> None:
        """Close the connection after the current request; at once where there is none."""
        if self._cycle is None or self._cycle.response_complete:
            self._output.close()
        else:
            self._cycle.keep_alive = False

    # What the registry calls.

    def check(self, now_s: float) -> None:
        if self._output.is_stalled(now_s, self._registry.limits.write_timeout_s):
            self._output.abort()
        elif self._is_lingering:
            if now_s > self._deadline_s:
                self._output.abort()
        elif self._is_between_requests():
            if now_s > self._deadline_s:
                self._output.close()
        elif self._body is not None:
            self._check_body(now_s)
        elif self._has_input_ended or self._is_reading_paused:
            self._check_presence(now_s)

    def evict(self) -> bool:
        is_request_at_hand = bool(self._unread) and self._is_between_requests()
        if is_request_at_hand or self._output.unsent_bytes():
            return False
        self._output.close()
        return True

    def _check_presence(self, now_s: float) -> None:
        """Stop the work for a client that has disconnected while nothing is read from it."""
        ahead, cycle = b"", self._cycle
        if cycle is not None and not cycle.response_started:
            ahead = ANSWER_AHEAD
        elif cycle is not None and cycle.chunked_encoding:
            ahead = CHUNK_AHEAD
        if self._output.is_lost(now_s, ahead):
            self._output.abort()

    def _check_body(self, now_s: float) -> None:
        # A client that waits for "100 Continue" sends nothing before the application reads.
        is_awaited = self._cycle is not None and self._cycle.waiting_for_100_continue
        is_ours_to_read = self._is_reading_paused or self._unread or is_awaited
        enough_bytes = MIN_BODY_BYTES_PER_S * BODY_STALL_S
        if is_ours_to_read or self._body_bytes >= enough_bytes:
            self._body_bytes, self._body_mark_s = 0, now_s
        elif now_s - self._body_mark_s > BODY_STALL_S:
            self._refuse("the body came too slowly")

    # The way of the bytes.

    def _is_between_requests(self) -> bool:
        return self._cycle is None or self._cycle.response_complete

    def _pump_soon(self) -> None:
        if not self._is_pump_due:
            self._is_pump_due = True
            self._loop.call_soon(self._pump_now)

    def _pump_now(self) -> None:
        self._is_pump_due = False
        if not self._transport.is_closing() and not self._is_lingering:
            self._pump()

    def _pump(self) -> None:
        """Parse what has arrived, up to the end of the current request."""
        try:
            position = self._take_head(0) if self._body is None else 0
            if self._body is not None:
                position = self._take_body(position)
        except MalformedRequest as error:
            self._refuse(str(error))
            return
        del self._unread[:position]
        self._regulate_reading()
        self._settle_end_of_input()

    def _settle_end_of_input(self) -> None:
        """Once nothing more can arrive, end what waits for more."""
        if not self._has_input_ended or self._unread or self._is_lingering:
            return
        if self._body is not None or self._head.size_bytes:
            self._refuse("the request ended early")
        elif self._is_between_requests():
            self._output.close()

    def _take_head(self, position: int) -> int:
        if self._is_between_requests():
            position = self._head.feed(self._unread, position)
            if self._head.head is not None:
                self._begin(self._head.head)
                self._head = HeadReader()
        return position

    def _take_body(self, position: int) -> int:
        cycle, body = self._cycle, self._body
        if cycle is None or body is None or len(cycle.body) > BODY_BUFFER_BYTES:
            return position
        begin, size_bytes = position, len(cycle.body)
        position = body.feed(self._unread, begin, cycle.body)
        self._body_bytes += position - begin
        if body.is_complete:
            self._body = None
            cycle.more_body = False
        elif position < len(self._unread):
            self._pump_soon()
        if body.is_complete or len(cycle.body) > size_bytes:
            cycle.message_event.set()
        return position

    def _regulate_reading(self) -> None:
        is_body_waiting = self._cycle is not None and len(self._cycle.body) > BODY_BUFFER_BYTES
        is_full = is_body_waiting or len(self._unread) > READ_AHEAD_BYTES
        if is_full == self._is_reading_paused or self._has_input_ended:
            return
        if self._transport.is_closing():
            return
        self._is_reading_paused = is_full
        if is_full:
            self._output.expect_silence(time.monotonic())
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Requests and answers.

    def _begin(self, head: RequestHead) -> None:
        self._registry.note_busy(self)
        self._body = read_body_of(head)
        self._body_bytes, self._body_mark_s = 0, time.monotonic()
        self._cycle = cycle = _Cycle(
            scope=self._build_scope(head),
            transport=self._output,  # type: ignore[arg-type]
            flow=self._flow,
            logger=_logger,
            access_logger=_logger,
            access_log=False,
            default_headers=self._server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keeps_alive,
            on_response=self._end_request,
        )
        cycle.on_answered = self._note_answered
        task = self._loop.create_task(cycle.run_asgi(self._app))
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)

    def _build_scope(self, head: RequestHead) -> HTTPScope:
        raw_path, _, query = head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "server": get_local_addr(self._transport),
            "client": self._client,
            "scheme": "http",
            "method": head.method,
            "root_path": "",
            "path": unquote(raw_path.decode("latin-1"), "utf-8"),
            "raw_path": raw_path,
            "query_string": query,
            "headers": head.headers,
            "state": self._app_state.copy(),
            "extensions": {OUTPUT_EXTENSION: {"unsent_bytes": self._output.unsent_bytes}},
        }

    def _note_answered(self) -> None:
        """Let the connection be evicted once its answer is written, though its body goes on.

        The rest of the body is only read to be dropped: clients without a key could otherwise hold
        all connections that way.
        """
        if self._body is not None:
            self._registry.note_idle(self)

    def _end_request(self) -> None:
        """Go on with the next request on the connection."""
        self._server_state.total_requests += 1
        if self._transport.is_closing():
            return
        self._deadline_s = time.monotonic() + self._config.timeout_keep_alive
        self._registry.note_idle(self)
        if self._body is not None:  # the rest of it would be taken for a request
            self._output.close()
        elif self._unread:
            self._deadline_s = min(self._deadline_s, time.monotonic() + HEAD_TIMEOUT_S)
            self._pump_soon()
        elif self._has_input_ended:
            self._output.close()

    def _disconnect_cycle(self) -> None:
        cycle = self._cycle
        if cycle is not None:
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()

    def _refuse(self, reason: str) -> None:
        """Answer 400 to bytes that are no request; an answer that has begun is only cut off."""
        is_between, cycle = self._is_between_requests(), self._cycle
        if is_between or cycle is None or not cycle.response_started:
            request_id = str(uuid4())
            self._write_last(error_response(InvalidRequestBody("Invalid HTTP request")), request_id)
            if is_between:  # else the request that broke off is logged by itself
                self._report(request_id, reason)
        self._disconnect_cycle()
        self._linger()

    def _linger(self) -> None:
        self._is_lingering = True
        self._unread.clear()
        self._body = None
        self._deadline_s = time.monotonic() + LINGER_S
        if self._has_input_ended:
            self._output.close()
            return
        self._output.end_writing()
        if self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _report(self, request_id: str, reason: str) -> None:
        """Count and log bytes that never became a request like a request."""
        record = AccessRecord(request_id, status=400, error_code=InvalidRequestBody.error_code)
        record.error_detail = reason
        record.ended_at_s = time.time()
        self._config.app.state.context.reporter.add(record)  # type: ignore[union-attr]

    def _write_last(self, response: Response, request_id: str) -> None:
        """Send an answer without the application, and close the connection after it."""
        headers = {
            **{name.decode(): value.decode() for name, value in self._server_state.default_headers},
            **DEFAULT_HEADERS,
            **dict(response.headers),
            "x-request-id": request_id,
            "connection": "close",
        }
        status = HTTPStatus(response.status_code)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name.lower()}: {value}" for name, value in headers.items()]
        self._output.write("\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(response.body))


class _Flow(FlowControl):
    """Flow control: writing waits for the client, and reading the body parses more of it."""

    def __init__(self, transport: asyncio.Transport, parse_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._parse_on = parse_on

    def resume_reading(self) -> None:
        self._parse_on()


class _Cycle(RequestResponseCycle):
    """The ASGI cycle of one request; `on_answered` is called once its answer is written."""

    on_answered: Callable[[], None]

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        is_body = message["type"] == "http.response.body"
        if is_body and self.chunked_encoding is False and not self.expected_content_length:
            self.on_answered()

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
