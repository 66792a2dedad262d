"""Send one HTTP request as bytes over a socket and read the reply, nothing added or hidden.

A client library would add an `Accept` of its own, follow redirects and mend what is broken, so the
kit brings its own thirty lines instead.
"""

import http.client
import io
import json
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 300.0  # the largest images take minutes without an accelerator
SEND_BYTES = 256 * 1024

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """One reply; `sent_bytes` is how much of the request's body had been sent by then."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    elapsed_s: float
    sent_bytes: int

    def header(self, name: str) -> str | None:
        """The only value of a header; None where it is absent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} was answered {len(values)} times: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body.decode("utf-8"))

    def __str__(self) -> str:
        lines = [f"{self.status} after {self.elapsed_s:.2f} s"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\n".join([*lines, "", repr(self.body[:400])])


class RateLimiter:
    """Spaces requests evenly; calling it waits until the next one may leave."""

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._next_s = 0.0

    def __call__(self) -> None:
        now_s = time.monotonic()
        if self._next_s > now_s:
            time.sleep(self._next_s - now_s)
        self._next_s = max(now_s, self._next_s) + self._interval_s


@dataclass(frozen=True)
class Target:
    """The server under test, and an API key of it; `wait_for_rate` delays the next request."""

    base_url: str
    api_key: str
    wait_for_rate: Callable[[], None] = lambda: None

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc

    @property
    def base_path(self) -> str:
        return urlsplit(self.base_url).path.rstrip("/")

    def send(
        self, method: str, path: str, headers: Headers = (), body: bytes | None = None
    ) -> Reply:
        """Send exactly these headers, and Host, Connection and Content-Length where missing."""
        names = {name.lower() for name, _ in headers}
        added = [] if "host" in names else [("Host", self.host)]
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            added.append(("Content-Length", str(len(body))))
        lines = [f"{name}: {value}" for name, value in (*added, *headers, ("Connection", "close"))]
        head = "\r\n".join([f"{method} {self.base_path}{path} HTTP/1.1", *lines, "", ""])
        return self.send_bytes(head.encode("latin-1"), body or b"")

    def send_bytes(self, head: bytes, body: bytes) -> Reply:
        """Send a whole request as it stands. `Expect: 100-continue` is waited for, as curl does.

        A server may answer while the body is still on its way: then sending stops, as every careful
        client's does.
        """
        self.wait_for_rate()
        method = head.split(b" ", 1)[0].decode()
        started_s = time.monotonic()
        with _connect(self.base_url) as connection:
            connection.sendall(head)
            sent_bytes = 0
            if b"expect: 100-continue" not in head.lower() or _may_continue(connection):
                sent_bytes = _send_body(connection, body)
            return receive(connection, method=method, started_s=started_s, sent_bytes=sent_bytes)


def receive(
    connection: "socket.socket | Conversation",
    *,
    method: str = "GET",
    started_s: float = 0.0,
    sent_bytes: int = 0,
) -> Reply:
    """The reply on a connection, or the next one of a conversation."""
    response = http.client.HTTPResponse(connection, method=method)  # type: ignore[arg-type]
    response.begin()
    data = response.read()
    headers, status = tuple(response.getheaders()), response.status
    response.close()
    return Reply(status, headers, data, time.monotonic() - started_s, sent_bytes)


class Conversation(io.BufferedReader):
    """A connection's incoming bytes, for several replies: what one leaves, the next one reads."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(socket.SocketIO(connection, "r"))

    def makefile(self, mode: str) -> "Conversation":
        return self

    def close(self) -> None:
        """Leave the stream open where http.client closes it: the next reply is still to come."""


def chunked(body: bytes, size_bytes: int = 64 * 1024) -> bytes:
    """The body in the chunked transfer coding."""
    parts = [body[at : at + size_bytes] for at in range(0, len(body), size_bytes)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _connect(base_url: str) -> socket.socket:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    is_tls = parts.scheme == "https"
    plain = socket.create_connection((host, parts.port or (443 if is_tls else 80)), TIMEOUT_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not is_tls:
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _may_continue(connection: socket.socket) -> bool:
    """Return whether the server sent 100 within a second, or nothing: both mean go on."""
    ready, _, _ = select.select([connection], [], [], 1.0)
    if not ready or isinstance(connection, ssl.SSLSocket):  # TLS has words of its own to say
        return True
    if not connection.recv(12, socket.MSG_PEEK).startswith(b"HTTP/1.1 100"):
        return False
    interim = b""
    while not interim.endswith(b"\r\n\r\n"):
        interim += connection.recv(1)
    return True


def _send_body(connection: socket.socket, body: bytes) -> int:
    """Send until the server answers or hangs up; returns how much went out."""
    is_tls = isinstance(connection, ssl.SSLSocket)
    sent = 0
    view = memoryview(body)
    while sent < len(body):
        readable, _, _ = select.select([connection], [connection], [], TIMEOUT_S)
        if readable and not is_tls:
            break
        try:
            sent += connection.send(view[sent : sent + SEND_BYTES])
        except (BrokenPipeError, ConnectionResetError):
            break
    return sent
