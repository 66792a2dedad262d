"""Servers on loopback that answer as the service does, or as others do."""

import http.server
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

OURS: Final = {"/healthz": (200, b'{"status":"ok"}'), "/readyz": (200, b'{"status":"ready"}')}
NOT_READY: Final = {**OURS, "/readyz": (503, b'{"error":"Not ready"}')}
ANOTHER: Final = {"/healthz": (200, b"<h1>It works!</h1>")}


@contextmanager
def answering(
    answers: Mapping[str, tuple[int, bytes]], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """The port of a server that gives (status, body) by path, 404 elsewhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with running(Handler, tls) as port:
        yield port


@contextmanager
def running(
    handler: type[http.server.BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """The port of a server on loopback, for as long as the block."""
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses the certificate hangs up, as it should."""
