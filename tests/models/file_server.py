"""A real HTTP server of one file on loopback, which can cut, send wrong lengths and redirect."""

import http.server
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CONTENT = bytes(range(256)) * 4096
LENGTH = len(CONTENT)
HALF = LENGTH // 2


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT. Each request may fail by the next of `failures`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.knows_ranges = True
        self.failures: list[Callable[[Handler], object]] = []
        self.ranges: list[str | None] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Print no traceback for a client that disconnects early, which tests do."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        if self.server.failures:
            self.server.failures.pop(0)(self)
        else:
            self.answer(CONTENT)

    def answer(self, content: bytes, *, stop_after: int | None = None) -> None:
        """Send the requested range of `content`, or all of it, but at most `stop_after` bytes."""
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked and self.server.knows_ranges:
            start = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:stop_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


def breaks_off(after_bytes: int) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(CONTENT, stop_after=after_bytes)


def sends(content: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(content)


def fails_with(status: int) -> Callable[[Handler], None]:
    return lambda handler: handler.send_error(status)


def redirects_to(url: str) -> Callable[[Handler], None]:
    def redirect(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return redirect


def sends_without_length(content: bytes) -> Callable[[Handler], None]:
    def send(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    return send


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server, which must be reached without a proxy."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ignore_progress(_done: int, _total: int) -> None:
    """Take the progress of a fetch that no test looks at."""
