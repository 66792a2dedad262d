"""A real server under the eyes of a test: what it leaves on disk and in its database."""

import io
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from tests.running import Server, children_of, serve

MULTIPART = "multipart/form-data; boundary=b"
IMAGE_PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
MAX_FILE_BYTES = 300_000
SETTINGS = {
    "UPSCALED_METERING": "true",
    "UPSCALED_DEVICE": "cpu",  # on one core, so that work lasts long enough to be interrupted
    "UPSCALED_THREADS": "1",
    "UPSCALED_RATE_PER_S": "100000",
    "UPSCALED_RATE_BURST": "100000",
    "UPSCALED_MAX_QUEUE": "1",
    "UPSCALED_MAX_FILE_BYTES": str(MAX_FILE_BYTES),
    "UPSCALED_MAX_INPUT_SIDE_X4": "200",
    "UPSCALED_SOURCE_TIMEOUT_S": "5",
    "UPSCALED_SOURCE_PRIVATE_CIDRS": "127.0.0.1/32",
}


def encode(width_px: int, height_px: int, format_name: str = "JPEG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width_px, height_px), 60).convert(mode).save(file, format_name)
    return file.getvalue()


@cache
def encode_gradient(side_px: int = 3000) -> bytes:
    """Small as a file, for it is smooth, and much work, for no part of it is flat."""
    file = io.BytesIO()
    Image.radial_gradient("L").resize((side_px, side_px)).convert("RGB").save(file, "JPEG")
    return file.getvalue()


SMALL = encode(80, 64)
WITH_ALPHA = encode(80, 64, "PNG", "RGBA")
WIDE = encode(201, 80)


@dataclass(frozen=True)
class Traces:
    """The traces of requests, as the disk and the database have it."""

    balance: int
    captures: int
    open_holds: int
    results: frozenset[str]
    strange_files: frozenset[str]


@dataclass(frozen=True)
class Service:
    """A running server, its key "first", and the folder its processes put temporary files in."""

    server: Server
    temporary_dir: Path
    origin_url: str

    @property
    def url(self) -> str:
        return f"{self.server.url}/v1/upscale"

    def send(self, image: bytes = SMALL, scale: object = 2, **changes: Any) -> requests.Response:
        """A good upload, with the given changes."""
        good: dict[str, Any] = {
            "headers": {"X-API-KEY": self.server.key},
            "data": {"scale": scale},
            "files": {"image": ("photo", image)},
            "timeout": 100,
        }
        return requests.post(self.url, **{**good, **changes})

    def send_url(self, path: str, scale: object = 2) -> requests.Response:
        url = path if "://" in path else self.origin_url + path
        return self.send_body(f'{{"image_url": "{url}", "scale": {scale}}}', "application/json")

    def send_body(self, body: Any, content_type: str) -> requests.Response:
        headers = {"X-API-KEY": self.server.key, "Content-Type": content_type}
        return requests.post(self.url, data=body, headers=headers, timeout=60)

    def traces(self) -> Traces:
        data_dir = self.server.data_dir
        files = {path for path in data_dir.rglob("*") if path.is_file()}
        files |= {path for path in self.temporary_dir.rglob("*") if path.is_file()}
        files = {path for path in files if path.parent.name != "trial"}  # the server's own probe
        results = {path for path in files if path.suffix in (".jpg", ".png")}
        known = {path for path in files if path.name.startswith("upscaled.sqlite3")}
        known |= {path for path in files if path.parent.name == "holders"}
        uri = f"file:{data_dir}/upscaled.sqlite3?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.execute("BEGIN")  # all of one moment
            (balance,) = database.execute(
                "SELECT balance FROM api_keys WHERE name = 'first'"
            ).fetchone()
            (captures,) = database.execute(
                "SELECT count(*) FROM credit_entries WHERE kind = 'capture'"
            ).fetchone()
            (open_holds,) = database.execute("SELECT count(*) FROM open_holds").fetchone()
        return Traces(
            balance,
            captures,
            open_holds,
            frozenset(path.name for path in results),
            frozenset(str(path) for path in files - results - known),
        )

    def wait_for(self, wanted: Callable[[Traces], bool], timeout_s: float = 30) -> Traces:
        deadline = time.monotonic() + timeout_s
        while not wanted(traces := self.traces()):
            assert time.monotonic() < deadline, traces
            time.sleep(0.02)
        return traces

    def worker(self) -> psutil.Process:
        (worker,) = children_of(self.server, "upscaled.worker.main")
        return worker

    def worker_starts(self) -> int:
        return sum(" is ready on " in line for line in self.server.stderr)

    def wait_worker_started(self, starts: int) -> None:
        deadline = time.monotonic() + 60
        while self.worker_starts() < starts:
            assert time.monotonic() < deadline, self.server.stderr[-20:]
            time.sleep(0.01)


class _Origin(BaseHTTPRequestHandler):
    """The origins that an image_url may meet."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = {"/photo": SMALL, "/page": b"<html>no image</html>", "/wide": WIDE}.get(path, b"")
        length = {"/large": MAX_FILE_BYTES + 1, "/broken": 5_000}.get(path, len(body))
        self.send_response(404 if path == "/missing" else 200)
        if path not in ("/endless", "/slow"):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            self.wfile.write(body)
            while path == "/endless":
                self.wfile.write(b"x" * 65536)
            if path == "/slow":
                time.sleep(7)
        except OSError:  # the service closed the connection before the end
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def origin() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def running(folder: Path, origin_url: str = "", **settings: str) -> Iterator[Service]:
    temporary_dir = folder / "temporary"
    temporary_dir.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary_dir))
        chosen: dict[str, Any] = {**SETTINGS, **settings}
        with serve(folder / "data", timeout_s=100, **chosen) as server:
            yield Service(server, temporary_dir, origin_url)


def send_without_waiting(service: Service, image: bytes, *, sent_part: float = 1) -> socket.socket:
    """Send a request by hand, all of its body or the first part, and read nothing."""
    end = b'\r\n--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n--b--\r\n'
    body = IMAGE_PART + image + end
    head = (
        f"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nX-API-KEY: {service.server.key}\r\n"
        f"Content-Type: {MULTIPART}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, port = service.server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(head.encode() + body[: int(len(body) * sent_part)])
    return connection
