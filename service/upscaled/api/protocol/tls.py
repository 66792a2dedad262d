"""Serve TLS on a connection: bytes are decrypted for `ContractProtocol`, and its answers encrypted.

The event loop's own TLS announces a connection only after its handshake, and does not say how much
of an answer still waits in the transport below. Here a connection counts from its first packet, its
handshake is part of the time that a head has, and slow readers are seen as they are without TLS.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import uuid4

from uvicorn.config import Config
from uvicorn.server import ServerState

from upscaled.api.protocol.http1 import ContractProtocol
from upscaled.api.protocol.refusal import render_error
from upscaled.errors import InvalidRequestBody
from upscaled.logs import event
from upscaled.process.certificate import ServerCertificate

# Encrypted at once, so that the copy of a large answer is made in parts.
PIECE_BYTES: Final = 256 * 1024
_RECORD_BYTES: Final = 16 * 1024  # the most that a record of TLS carries

_log: Final = logging.getLogger(__name__)


class TlsTransport(asyncio.Transport):
    """Transport that encrypts what is written to it, over a transport of the event loop.

    What is written before the end of the handshake is dropped: only the refusal of a connection is.
    """

    def __init__(self, plain: asyncio.Transport, context: ssl.SSLContext) -> None:
        super().__init__()
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_established = False
        self._is_writing_ended = False
        self.has_input_ended = False

    def decrypt(self, data: bytes) -> bytes:
        """Return what the client has sent in these bytes, after the handshake; often nothing.

        Bytes that follow the client's end of TLS are dropped.

        Raises:
            ssl.SSLError: the bytes are no TLS, or the client refuses the certificate.
        """
        if self.has_input_ended:  # nothing reads them any more, so they would pile up
            return b""
        self._incoming.write(data)
        received = bytearray()
        with self._sending_records(), suppress(ssl.SSLWantReadError):  # the rest is on its way
            if not self._is_established:
                self._tls.do_handshake()
                self._is_established = True
            with suppress(ssl.SSLZeroReturnError):  # raised where both sides have ended
                while part := self._tls.read(_RECORD_BYTES):
                    received += part
            self.has_input_ended = True
        return bytes(received)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_established or self._is_writing_ended:
            return
        view = memoryview(data)
        for begin in range(0, len(view), PIECE_BYTES):
            with self._sending_records():
                self._tls.write(view[begin : begin + PIECE_BYTES])

    def can_write_eof(self) -> bool:
        return self._plain.can_write_eof()

    def write_eof(self) -> None:
        self._end_writing()
        self._plain.write_eof()

    def close(self) -> None:
        """Close the connection once everything written has been sent, with TLS's own end of it."""
        if not self._plain.is_closing():
            self._end_writing()
            self._plain.close()

    def abort(self) -> None:
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._plain.is_closing()

    def is_reading(self) -> bool:
        return self._plain.is_reading()

    def pause_reading(self) -> None:
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        self._plain.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._tls if name == "ssl_object" else self._plain.get_extra_info(name, default)

    def _end_writing(self) -> None:
        if not self._is_established or self._is_writing_ended:
            return
        self._is_writing_ended = True
        # The client has mostly not ended its own side, which nothing here waits for.
        with self._sending_records(), suppress(ssl.SSLError):
            self._tls.unwrap()

    @contextmanager
    def _sending_records(self) -> Iterator[None]:
        """Send what the block makes for the client, an alert at its failure too."""
        try:
            yield
        finally:
            if self._outgoing.pending and not self._plain.is_closing():
                self._plain.write(self._outgoing.read())


class TlsProtocol(asyncio.Protocol):
    """Protocol of a connection under TLS, which wraps that of HTTP."""

    def __init__(self, certificate: ServerCertificate, http: ContractProtocol) -> None:
        """Encrypt a connection, and serve HTTP on it.

        Args:
            certificate: gives the context, when the client connects.
            http: gets what is decrypted, and a transport that encrypts.
        """
        self._certificate = certificate
        self._http = http
        self._plain: asyncio.Transport
        self._transport: TlsTransport
        self._has_reported_end = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._plain = transport
        self._transport = TlsTransport(transport, self._certificate.context)
        self._http.connection_made(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            received = self._transport.decrypt(data)
        except ssl.SSLError as error:
            self._refuse(error)
            return
        if received:
            self._http.data_received(received)
        if self._transport.has_input_ended and not self.eof_received():
            self._transport.close()

    def eof_received(self) -> bool:
        if self._has_reported_end:
            return not self._plain.is_closing()
        self._has_reported_end = True
        return self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def _refuse(self, error: ssl.SSLError) -> None:
        """Close a connection that is no TLS; a client that sends plain HTTP gets an answer."""
        reason = error.reason or str(error)
        _log.info("TLS failed: %s", reason, extra=event("tls_failed", reason=reason))
        if reason == "HTTP_REQUEST":
            answer = render_error(InvalidRequestBody("This port serves https"), str(uuid4()), ())
            self._plain.write(answer)
        self._plain.close()


def make_tls_factory(certificate: ServerCertificate) -> Callable[..., TlsProtocol]:
    """Return a function that makes the protocol of a connection, for uvicorn's `Config.http`."""

    def make_protocol(
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> TlsProtocol:
        http = ContractProtocol(config, server_state, app_state, _loop)
        return TlsProtocol(certificate, http)

    return make_protocol
