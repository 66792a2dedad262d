"""Serve one HTTP/1.1 connection: `uvicorn.Config(app, http=ContractProtocol)`.

uvicorn's own protocols count nothing before their parsers, have no deadline for writing and drop a
client that shuts its sending side. Here:

- one request at a time is processed; what follows it waits in a bounded buffer;
- heads, chunk lines and trailers are bounded (`upscaled.api.protocol.head`, `.framing`);
- a head has 30 s to arrive, and a body and a response must make progress (`check`);
- every refusal is in the contract's words.
"""

import asyncio
import time
from typing import Any, Final
from uuid import uuid4

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from upscaled.api.protocol.cycle import Cycle, HttpFlowControl, build_scope
from upscaled.api.protocol.framing import BodyProgress, BodyReader, read_body_of
from upscaled.api.protocol.head import HeadReader, MalformedRequest, RequestHead
from upscaled.api.protocol.output import Output
from upscaled.api.protocol.refusal import build_record, render_error
from upscaled.api.protocol.registry import Connections
from upscaled.api.telemetry.access_log import Reporter
from upscaled.errors import InvalidRequestBody, RateLimitExceeded, ServiceError

HEAD_TIMEOUT_S: Final = 30.0
# Time over which a body's average speed is measured; `UPSCALED_BODY_TIMEOUT_S` bounds the whole.
BODY_STALL_S: Final = 30.0
# Held of the body at hand, and of requests that follow it; more bytes are left in the socket.
BODY_BUFFER_BYTES: Final = 64 * 1024
READ_AHEAD_BYTES: Final = 64 * 1024
# A refused client's bytes are discarded for a moment: a close before that loses it the answer.
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 2 * 1024 * 1024
_RETRY_AFTER_S: Final = 1


class ContractProtocol(asyncio.Protocol):
    """Protocol of one connection: read requests, run the application, send responses."""

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
        self._flow: HttpFlowControl
        self._pending = bytearray()
        self._head = HeadReader()
        self._body: BodyReader | None = None  # of the request at hand, None once it was read
        self._cycle: Cycle | None = None  # of the request that is being answered
        self._is_reading_paused = False
        self._has_input_ended = False
        self._is_lingering = False
        self._deadline_s = 0.0
        self._body_progress = BodyProgress(0.0)
        self._lingered_bytes = 0

    # Callbacks of uvicorn and of the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._output = Output(transport)
        self._flow = HttpFlowControl(transport, self)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._client = get_remote_addr(transport)
        self._deadline_s = time.monotonic() + HEAD_TIMEOUT_S
        if not self._registry.admit(self, self._client[0] if self._client else ""):
            self._write_last(RateLimitExceeded(_RETRY_AFTER_S), str(uuid4()))
            self._output.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.remove(self)
        self._server_state.connections.discard(self)
        if self._cycle is not None:
            self._cycle.disconnect()
        self._flow.resume_writing()
        self._pending.clear()

    def data_received(self, data: bytes) -> None:
        if self._is_lingering or self._transport.is_closing():
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES:
                self._output.abort()
            return
        if not self._pending and self._body is None and self._is_between_requests():
            self._deadline_s = min(self._deadline_s, time.monotonic() + HEAD_TIMEOUT_S)
        self._pending += data
        self.pump()

    def eof_received(self) -> bool:
        """Note that the client has shut its sending side.

        A client whose request is complete still gets its answer; `check` finds out whether it has
        disconnected altogether.
        """
        self._has_input_ended = True
        self._output.expect_silence(time.monotonic())
        self._settle_end_of_input()
        is_waiting = bool(self._pending) or not self._is_between_requests()
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

    # Callbacks of the registry.

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
            # Nothing is read from the client, so only a probe shows that it has disconnected.
            ahead = self._cycle.ahead if self._cycle is not None else b""
            if self._output.is_lost(now_s, ahead):
                self._output.abort()

    def evict(self) -> bool:
        is_request_at_hand = bool(self._pending) and self._is_between_requests()
        if is_request_at_hand or self._output.unsent_bytes():
            return False
        self._output.close()
        return True

    def _check_body(self, now_s: float) -> None:
        # A client that waits for "100 Continue" sends nothing before the application reads.
        is_awaited = self._cycle is not None and self._cycle.waiting_for_100_continue
        if self._is_reading_paused or self._pending or is_awaited:
            self._body_progress.restart(now_s)
        elif self._body_progress.is_stalled(now_s, BODY_STALL_S):
            self._refuse("the body came too slowly")

    # Input.

    def _is_between_requests(self) -> bool:
        return self._cycle is None or self._cycle.response_complete

    def pump(self) -> None:
        """Parse what has arrived, up to the end of the current request."""
        if self._transport.is_closing() or self._is_lingering:
            return
        position = 0
        try:
            if self._body is None and self._is_between_requests():
                position = self._parse_head()
            if self._body is not None:
                position = self._parse_body(position)
        except MalformedRequest as error:
            self._refuse(str(error))
            return
        del self._pending[:position]
        self._regulate_reading()
        self._settle_end_of_input()

    def _settle_end_of_input(self) -> None:
        """Once nothing more can arrive, end what waits for more."""
        if not self._has_input_ended or self._pending or self._is_lingering:
            return
        if self._body is not None or self._head.size_bytes:
            self._refuse("the request ended early")
        elif self._is_between_requests():
            self._output.close()

    def _parse_head(self) -> int:
        position = self._head.feed(self._pending)
        if self._head.head is not None:
            self._begin(self._head.head)
            self._head = HeadReader()
        return position

    def _parse_body(self, position: int) -> int:
        cycle, body = self._cycle, self._body
        if cycle is None or body is None or len(cycle.body) > BODY_BUFFER_BYTES:
            return position
        begin, size_bytes = position, len(cycle.body)
        position = body.feed(self._pending, begin, cycle.body)
        self._body_progress.add(position - begin)
        if body.is_complete:
            self._body = None
            cycle.more_body = False
        elif position < len(self._pending):
            self._flow.pump_soon()
        if body.is_complete or len(cycle.body) > size_bytes:
            cycle.message_event.set()
        return position

    def _regulate_reading(self) -> None:
        # Once a body has ended, the application reads no more, and nothing would resume reading.
        cycle = self._cycle if self._body is not None else None
        is_body_waiting = cycle is not None and len(cycle.body) > BODY_BUFFER_BYTES
        is_full = is_body_waiting or len(self._pending) > READ_AHEAD_BYTES
        is_ending = self._has_input_ended or self._transport.is_closing()
        if is_ending or is_full == self._is_reading_paused:
            return
        self._is_reading_paused = is_full
        if is_full:
            self._output.expect_silence(time.monotonic())
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Requests and responses.

    def _begin(self, head: RequestHead) -> None:
        self._registry.note_busy(self)
        self._body = read_body_of(head)
        self._body_progress.restart(time.monotonic())
        scope = build_scope(head, self._transport, self._app_state, self._output)
        defaults = self._server_state.default_headers
        self._cycle = Cycle(head, scope, self, self._output, self._flow, defaults)
        task = self._loop.create_task(self._cycle.run_asgi(self._app))
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)

    def note_answered(self) -> None:
        """Let the connection be evicted once its answer is written, though its body goes on.

        The rest of the body is only read to be dropped: clients without a key could otherwise hold
        all connections that way.
        """
        if self._body is not None:
            self._registry.note_idle(self)

    def end_request(self) -> None:
        self._server_state.total_requests += 1
        if self._transport.is_closing():
            return
        self._deadline_s = time.monotonic() + self._config.timeout_keep_alive
        self._registry.note_idle(self)
        if self._body is not None:  # its rest would be parsed as a request
            self._output.close()
        elif self._pending:
            self._deadline_s = min(self._deadline_s, time.monotonic() + HEAD_TIMEOUT_S)
            self._flow.pump_soon()
        elif self._has_input_ended:
            self._output.close()

    def _refuse(self, reason: str) -> None:
        """Answer 400 to bytes that are no request; only cut off a response that has begun."""
        is_between, cycle = self._is_between_requests(), self._cycle
        if is_between or cycle is None or not cycle.response_started:
            request_id = str(uuid4())
            self._write_last(InvalidRequestBody("Invalid HTTP request"), request_id)
            if is_between:  # else the request that broke off is logged by itself
                reporter: Reporter = self._config.app.state.context.reporter  # type: ignore[union-attr]
                reporter.add(build_record(request_id, reason))
        if self._cycle is not None:
            self._cycle.disconnect()
        self._linger()

    def _linger(self) -> None:
        self._is_lingering = True
        self._pending.clear()
        self._body = None
        self._deadline_s = time.monotonic() + LINGER_S
        if self._has_input_ended:
            self._output.close()
            return
        self._output.end_writing()
        if self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _write_last(self, error: ServiceError, request_id: str) -> None:
        """Send a response without the application, and close the connection after it."""
        defaults = self._server_state.default_headers
        self._output.write(render_error(error, request_id, defaults))
