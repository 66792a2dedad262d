"""HTTP by hand: requests that no client library would send, or not at that speed."""

import json
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Final, Self

from tests.service.api.pictures import picture
from tests.service.api.serving import Service
from upscaled.api.protocol.registry import Connections

WAITED_S: Final = 25.0
"""Less than the limits on heads, bodies and idle connections, which would end what is forgotten."""

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def connections_of(service: Service) -> Connections:
    connections: Connections = service.app.state.connections
    return connections


@dataclass
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    def assert_error(self, status: int, error_code: str) -> None:
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        body: dict[str, Any] = json.loads(self.body)
        assert set(body) == {"error", "error_code"}
        assert body["error_code"] == error_code


class Connection:
    """A connection to `service`, over TLS where it has a certificate.

    `receive_bytes`: how much the client's kernel receives unread; 0: its default.
    """

    def __init__(
        self, service: Service, timeout_s: float = WAITED_S, key: str = "", receive_bytes: int = 0
    ) -> None:
        self.service = service
        self.key = key or service.key
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.connect((service.host, service.port))
        if service.certificate is not None:
            tls = service.certificate.client_context()
            self.socket = tls.wrap_socket(self.socket, server_hostname=service.host)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_head(self, *headers: str, method: str = "POST", path: str = "/v1/upscale") -> None:
        """A request's head with a good key; `headers` are further ones."""
        key = f"X-API-KEY: {self.key}"
        lines = [f"{method} {path} HTTP/1.1", "Host: x", key, *headers, "", ""]
        self.send("\r\n".join(lines).encode())

    def send_upload(self, *headers: str) -> None:
        """Send a valid form whose result is accepted as an image."""
        body = (
            b'--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n'
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            + picture()
            + b"\r\n--b--\r\n"
        )
        form = "Content-Type: multipart/form-data; boundary=b"
        self.send_head(form, f"Content-Length: {len(body)}", "Accept: image/*", *headers)
        self.send(body)

    def reset_on_close(self) -> None:
        """Have the end of this connection be a reset, as of a client that crashes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def receive(self) -> RawAnswer:
        """The next final answer; a `100 Continue` is passed over."""
        while True:
            head = self._receive_until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            if status != 100:
                break
        pairs = (line.partition(": ") for line in lines if line)
        headers = {name.lower(): value for name, _, value in pairs}
        return RawAnswer(status, headers, self._receive_exactly(int(headers["content-length"])))

    def receive_head(self) -> bytes:
        """The next response's head: the whole answer to the method HEAD."""
        return self._receive_until(b"\r\n\r\n").lower()

    def is_closed(self) -> bool:
        """Return whether the server closes the connection without sending more."""
        self.socket.settimeout(WAITED_S)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:  # closed with unread bytes
            return True

    def _receive_until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._fill()
        head, _, self._received = self._received.partition(mark)
        return head

    def _receive_exactly(self, size_bytes: int) -> bytes:
        while len(self._received) < size_bytes:
            self._fill()
        data, self._received = self._received[:size_bytes], self._received[size_bytes:]
        return data

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {self._received!r}")
        self._received += data


def seconds_since(started: float) -> float:
    return time.monotonic() - started
