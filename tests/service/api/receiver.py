"""A receiver of webhooks on loopback, which answers as set and records what it receives."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Call:
    """A request that a receiver got; names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are raw bytes, one for each call, the last one for all further; b"": it hangs."""

    host: str
    answers: list[bytes]
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"


def status(code: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} X", "Content-Length: 0", *headers, "", ""]).encode()


@contextmanager
def receive(*answers: bytes, host: str = "127.0.0.1") -> Iterator[Receiver]:
    receiver = Receiver(host, list(answers) or [status(200)])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            number = min(len(receiver.calls), len(receiver.answers) - 1)
            receiver.calls.append(Call(self.path, headers, body))
            answer = receiver.answers[number]
            if not answer:
                receiver.may_end.wait(60)
            self.wfile.write(answer)
            self.close_connection = True

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the sender hung up
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.may_end.set()
        server.shutdown()
        thread.join()
        server.server_close()
