"""No key, no image byte and no path or name that a client sent is ever logged or counted.

One session with a real server says everything a client may say, each secret under a word of its
own; then the words are looked for in all that it wrote to standard error and in its figures.
"""

import io
import json
import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.running import Server, children_of, serve
from tests.service.observed_server import origin

pytestmark = pytest.mark.slow

# Each is sent once in a place where a client has reason to put something private.
NAME = "passport-scan-7361.png"
FIELD = "fieldname-8823"
COMMENT = "comment-inside-the-picture-5519"
PATH = "private-path-1946"
QUERY = "signature-3307"
FRAGMENT = "fragment-6110"
USER = "username-4478"
PASSWORD = "hunter-9934"
WRONG_KEY = "upk_0123456789abcdef_guessed-2281"
HEADER = "cookie-7745"
SECRETS = [NAME, FIELD, COMMENT, PATH, QUERY, FRAGMENT, USER, PASSWORD, WRONG_KEY, HEADER]


@dataclass(frozen=True)
class Session:
    """The traces of a session: standard error's lines, the figures, and what must be in neither."""

    lines: list[str]
    figures: str
    secrets: list[str]


def draw() -> bytes:
    """A PNG of noise with a comment in it."""
    about = PngInfo()
    about.add_text("Comment", COMMENT)
    pixels = np.random.default_rng(5).integers(0, 256, (80, 72, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=about)
    return file.getvalue()


class _Client:
    """A client of one server that is free with its secrets."""

    def __init__(self, server: Server, origin_url: str) -> None:
        self.server = server
        self.origin_url = origin_url

    def post(self, key: str | None = None, **what: Any) -> requests.Response:
        return requests.post(
            f"{self.server.url}/v1/upscale?token={QUERY}",
            headers={"X-API-KEY": key or self.server.key, "Cookie": HEADER},
            timeout=60,
            **what,
        )

    def upload(self, image: bytes, **changes: Any) -> requests.Response:
        files = {"image": (NAME, image), FIELD: (NAME, b"more")}
        return self.post(files=files, data={"scale": "2"}, **changes)

    def send_url(self, url: str) -> requests.Response:
        return self.post(json={"image_url": url, "scale": 2})

    def say_everything(self, picture: bytes) -> list[str]:
        """The names of results, which are secrets of the server's own making."""
        url = self.upload(picture).json()["result_url"]
        requests.get(url, timeout=60)
        self.upload(picture, key=WRONG_KEY)
        self.upload(b"garbage " + COMMENT.encode())
        for cut in (20, 60, 200, len(picture) // 2):
            self.upload(picture[:cut])
        self.send_urls()
        for path in (f"/{PATH}/x?key={self.server.key}", f"/public/result/{PATH}", f"/v1/{PATH}"):
            requests.get(self.server.url + path, headers={"Cookie": HEADER}, timeout=60)
        self.post(data=f"not json {PATH}", params={"x": QUERY})
        self.say_nonsense()
        return [url.rpartition("/")[2].partition(".")[0]]

    def send_urls(self) -> None:
        host = self.origin_url.removeprefix("http://")
        tail = f"{PATH}?sig={QUERY}#{FRAGMENT}"
        for url in (
            f"{self.origin_url}/photo?{PATH}={QUERY}#{FRAGMENT}",
            f"{self.origin_url}/page?{PATH}={QUERY}",
            f"{self.origin_url}/missing?{PATH}",
            f"{self.origin_url}/large?{PATH}",
            f"{self.origin_url}/broken?{PATH}",
            f"http://10.0.0.1/{tail}",
            f"http://127.0.0.1:9/{tail}",
            f"http://nothing.invalid/{tail}",
            f"http://{USER}:{PASSWORD}@{host}/{tail}",
            f"http://[{PATH}/{tail}",
            f"http://a:{PATH}/{tail}",
            f"ftp://a/{tail}",
            f"{PATH}",
        ):
            self.send_url(url)

    def say_nonsense(self) -> None:
        """Bytes that are hardly HTTP."""
        host, port = self.server.url.removeprefix("http://").split(":")
        for head in (
            f"GET /{PATH} NONSENSE\r\n\r\n",
            f"{PATH}\r\n\r\n",
            f"GET / HTTP/1.1\r\n{PATH}",
        ):
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                connection.sendall(head.encode())
                connection.shutdown(socket.SHUT_WR)
                with suppress(OSError):
                    connection.recv(10_000)


def kill_worker(server: Server) -> None:
    (worker,) = children_of(server, "upscaled.worker.main")
    os.kill(worker.pid, signal.SIGKILL)
    server.wait_said("worker_died")
    server.wait_ready()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    picture = draw()
    folder: Path = tmp_path_factory.mktemp("session")
    settings: dict[str, Any] = {
        "UPSCALED_LOG_LEVEL": "debug",
        "UPSCALED_RATE_BURST": "1000",
        "UPSCALED_METERING": "true",
        "UPSCALED_SOURCE_TIMEOUT_S": "1",
        "UPSCALED_MAX_FILE_BYTES": "300000",
        "UPSCALED_SOURCE_PRIVATE_CIDRS": "127.0.0.1/32",
    }
    with origin() as origin_url, serve(folder / "data", **settings) as server:
        server.run("credits", "add", "first", "100")
        client = _Client(server, origin_url)
        names = client.say_everything(picture)
        kill_worker(server)
        assert client.upload(picture).status_code == 200
        time.sleep(1.2)  # until the worker has reported its figures
        figures = requests.get(f"{server.url}/metrics", timeout=60).text
        server.stop()
        return Session(server.stderr, figures, [server.key, *names, *SECRETS])


def test_the_session_was_logged(session: Session) -> None:
    """Else the tests below would pass over an empty log."""
    logged = [line for line in map(json.loads, session.lines) if line["event"] == "request"]
    codes = {line.get("error_code") for line in logged}
    assert codes >= {
        None,
        "invalid_auth_token",
        "malformed_image",
        "invalid_parameter",
        "file_size_too_large",
        "not_found",
    }
    assert len(logged) >= 30
    assert "upscaled_requests_total" in session.figures


def test_every_line_is_one_json_object(session: Session) -> None:
    for line in map(json.loads, session.lines):
        assert list(line)[:5] == ["time", "level", "logger", "event", "message"]
    events = {json.loads(line)["event"] for line in session.lines}
    assert {"request", "worker_ready", "worker_died", "stopping"} <= events


def test_no_secret_is_in_the_log(session: Session) -> None:
    log = "".join(session.lines)
    assert [secret for secret in session.secrets if secret in log] == []


def test_no_secret_is_in_the_figures(session: Session) -> None:
    assert [secret for secret in session.secrets if secret in session.figures] == []


def test_no_piece_of_the_picture_is_in_the_log(session: Session) -> None:
    """Any run of eight of its bytes, raw, escaped or as hexadecimal digits."""
    log = "".join(session.lines)
    data = draw()[41:]  # behind signature and header, which are the same in every PNG
    for at in range(0, len(data) - 8, 4):
        piece = data[at : at + 8]
        assert piece.hex() not in log
        assert repr(piece)[2:-1] not in log
        assert piece.decode("latin-1") not in log


def test_the_key_is_logged_by_its_name(session: Session) -> None:
    lines = [json.loads(line) for line in session.lines]
    named = [line["key_name"] for line in lines if "key_name" in line]
    assert set(named) == {"first"}
