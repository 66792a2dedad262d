import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import create_server
from typing import Any

import pytest

from scripts.releasing.audit import LOCKS, NotReachable, audit_locks

FAULT = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "summary": "A fault",
    "details": "A fault",
    "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "14.0"}]}],
        }
    ],
}


class _Database(BaseHTTPRequestHandler):
    """Answer as OSV's query does: pillow has a fault, nothing else has."""

    def do_POST(self) -> None:
        query: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"vulns": [FAULT]} if query["package"]["name"] == "pillow" else {}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def database_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Database) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    for lock in LOCKS:
        (tmp_path / lock).write_text("")
    (tmp_path / "requirements.lock").write_text("pillow==13.0.0\nnumpy==2.4.0\n")
    (tmp_path / "requirements-torch.lock").write_text("torch==2.13.0\n")
    return tmp_path


def test_a_vulnerable_package_is_named_with_the_identifier(locked: Path, database_url: str) -> None:
    audit = audit_locks(locked, url=database_url)
    assert audit.vulnerable == ("pillow 13.0.0: GHSA-aaaa-bbbb-cccc",)
    assert audit.packages == 3
    assert {each["name"] for each in audit.report["dependencies"]} == {"pillow", "numpy", "torch"}


@pytest.mark.slow
def test_an_accepted_vulnerability_does_not_count(locked: Path, database_url: str) -> None:
    audit = audit_locks(locked, [FAULT["id"]], database_url)  # type: ignore[list-item]
    assert audit.vulnerable == ()
    assert audit.packages == 3


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_no_clean_audit(locked: Path) -> None:
    with closing(create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
    with pytest.raises(NotReachable, match="Connection refused"):
        audit_locks(locked, url=f"http://127.0.0.1:{port}/")


def test_every_lock_that_users_install_is_audited() -> None:
    root = Path(__file__).resolve().parents[3]
    there = {path.name for path in root.glob("requirements*.lock")}
    assert there - set(LOCKS) == {"requirements-dev.lock"}
    assert set(LOCKS) <= there
