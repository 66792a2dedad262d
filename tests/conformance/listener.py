"""A web server of the kit's own, for `image_url` to point at; it counts who came, what was read."""

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Visit"], None]
MEGABYTE = 1024 * 1024


class Visit(BaseHTTPRequestHandler):
    """One request to the listener; what it does is looked up by its path."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        listener = self.server.listener
        path = self.path.split("?")[0]
        listener.hits[path] += 1
        listener.all_hits += 1
        self.close_connection = True
        with contextlib.suppress(ConnectionError, TimeoutError):
            listener.behaviours.get(path, answers(404, b"not here"))(self)

    do_HEAD = do_GET  # noqa: N815 - the base class looks it up by this name

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests' output is the report."""

    def write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.listener.bytes_out[self.path.split("?")[0]] += len(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    listener: "Listener"

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Visit)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:  # "::" then takes IPv4 as well
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report no client that disconnects early: many of these tests expect one."""


class Listener:
    """Listens on one address until closed. `hits` and `bytes_out` are counted per path."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.hits: Counter[str] = Counter()
        self.all_hits = 0
        self.bytes_out: Counter[str] = Counter()
        self.behaviours: dict[str, Behaviour] = {}
        self._server = _Server(host)
        self._server.listener = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def url(self, path: str, host: str | None = None) -> str:
        return f"http://{host or self.host}:{self.port}{path}"

    def on(self, path: str, behaviour: Behaviour, host: str | None = None) -> str:
        """Answer `path` so from now on; returns its URL."""
        self.behaviours[path] = behaviour
        return self.url(path, host)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[Listener]:
    listener = Listener(host)
    try:
        yield listener
    finally:
        listener.close()


def answers(status: int, body: bytes, content_type: str = "image/jpeg") -> Behaviour:
    def behave(visit: Visit) -> None:
        visit.send_response(status)
        visit.send_header("Content-Type", content_type)
        visit.send_header("Content-Length", str(len(body)))
        visit.end_headers()
        visit.write(body)

    return behave


def writes(raw: bytes) -> Behaviour:
    """Writes these bytes, head and all, and hangs up."""

    def behave(visit: Visit) -> None:
        visit.write(raw)

    return behave


def redirects(location: str, status: int = 302) -> Behaviour:
    def behave(visit: Visit) -> None:
        visit.send_response(status)
        visit.send_header("Location", location)
        visit.send_header("Content-Length", "0")
        visit.end_headers()

    return behave


def declares(size_bytes: int, start: bytes) -> Behaviour:
    """Declares a length and then sends until the client disconnects or the length is reached."""

    def behave(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("Content-Type", "image/jpeg")
        visit.send_header("Content-Length", str(size_bytes))
        visit.end_headers()
        visit.write(start)
        for _ in range((size_bytes - len(start)) // MEGABYTE):
            visit.write(b"\0" * MEGABYTE)

    return behave


def streams(start: bytes, size_bytes: int) -> Behaviour:
    """Sends chunks without ever having declared a length."""

    def behave(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("Content-Type", "image/jpeg")
        visit.send_header("Transfer-Encoding", "chunked")
        visit.end_headers()
        visit.write(b"%x\r\n%s\r\n" % (len(start), start))
        sent = len(start)
        while sent < size_bytes:
            piece = b"\0" * min(MEGABYTE, size_bytes - sent)
            visit.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            sent += len(piece)
        visit.write(b"0\r\n\r\n")

    return behave


def falls_silent(for_s: float) -> Behaviour:
    """Reads the request and never answers."""

    def behave(visit: Visit) -> None:
        time.sleep(for_s)

    return behave


def drips(data: bytes, for_s: float) -> Behaviour:
    """Sends a byte every tenth of a second: no single read ever takes long."""

    def behave(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("Content-Length", str(len(data)))
        visit.end_headers()
        for at in range(int(for_s * 10)):
            visit.write(data[at : at + 1])
            time.sleep(0.1)

    return behave


def breaks_off(data: bytes, declared_bytes: int) -> Behaviour:
    """Declares more than it sends, and hangs up."""

    def behave(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("Content-Type", "image/jpeg")
        visit.send_header("Content-Length", str(declared_bytes))
        visit.end_headers()
        visit.write(data)

    return behave
