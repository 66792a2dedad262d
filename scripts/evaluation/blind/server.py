"""Serve the page of a blind comparison, on this machine alone.

Which upscaler made which crop stays in this process: the page gets numbers and sides.
"""

import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from scripts.evaluation.blind.pairs import Pair
from scripts.evaluation.blind.tally import Tally, Vote
from upscaled_models.quantise.tracks import encode_png

PAGE = Path(__file__).with_name("page.html")
HOST = "127.0.0.1"
_MOST_BODY_BYTES = 1_000
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class BlindServer(ThreadingHTTPServer):
    """Serves the pairs and stores the votes; `finished` is set when every pair has one."""

    daemon_threads = True

    def __init__(self, pairs: Sequence[Pair], tally: Tally, port: int = 0) -> None:
        """Listen on the loopback interface.

        Args:
            port: 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        super().__init__((HOST, port), _Handler)
        self._images = [(encode_png(pair.left_px), encode_png(pair.right_px)) for pair in pairs]
        self._pairs = pairs
        self._tally = tally
        self._lock = threading.Lock()
        self.finished = threading.Event()
        if self.state()["next"] is None:
            self.finished.set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def image(self, number: int, side: str) -> bytes:
        """Return a crop's PNG; `side` is left or right. Raises `IndexError` for no such pair."""
        if not 0 <= number < len(self._images):
            raise IndexError(number)
        return self._images[number][side == "right"]

    def state(self) -> dict[str, Any]:
        """Return the progress, and the summary once every pair has a vote."""
        with self._lock:
            open_ones = [n for n in range(len(self._pairs)) if n not in self._tally.votes]
            summary = None if open_ones else self._tally.summary()
            return {
                "total": len(self._pairs),
                "judged": len(self._pairs) - len(open_ones),
                "next": open_ones[0] if open_ones else None,
                "summary": summary,
            }

    def vote(self, number: int, choice: str) -> None:
        """Store the choice (left, right or none) on a pair; raises `ValueError` for another."""
        if not 0 <= number < len(self._pairs) or choice not in ("left", "right", "none"):
            raise ValueError(f"no such choice: {choice} of pair {number}")
        pair = self._pairs[number]
        preferred = {"left": pair.left, "right": pair.right, "none": ""}[choice]
        with self._lock:
            self._tally.add(number, Vote(pair.truth, pair.track, pair.left, pair.right, preferred))
            is_done = len(self._tally.votes) == len(self._pairs)
        if is_done:
            self.finished.set()


class _Handler(BaseHTTPRequestHandler):
    server: BlindServer

    def do_GET(self) -> None:
        if not self._is_for_us():
            return
        parts = self.path.strip("/").split("/")
        if parts == [""]:
            self._answer("text/html; charset=utf-8", PAGE.read_bytes())
        elif parts == ["state"]:
            self._answer_json(self.server.state())
        elif len(parts) == 3 and parts[0] == "pairs" and parts[2] in ("left.png", "right.png"):
            try:
                image = self.server.image(int(parts[1]), parts[2].removesuffix(".png"))
            except (ValueError, IndexError):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self._answer("image/png", image)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_for_us():
            return
        # Another site's page can send no JSON here without asking first, and gets no permission.
        if self.path != "/votes" or self.headers.get_content_type() != "application/json":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            length = min(int(self.headers["Content-Length"] or 0), _MOST_BODY_BYTES)
            vote = json.loads(self.rfile.read(length))
            self.server.vote(int(vote["pair"]), str(vote["choice"]))
        except (ValueError, KeyError, TypeError):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        self._answer_json(self.server.state())

    def _is_for_us(self) -> bool:
        """Return whether the Host header names the loopback interface, against DNS rebinding."""
        port = self.server.server_port
        if self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}"):
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False

    def _answer_json(self, document: dict[str, Any]) -> None:
        self._answer("application/json", json.dumps(document).encode())

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log no requests: the terminal shows the votes."""
