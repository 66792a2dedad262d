"""Buckets in a real S3 server, moto's, and a proxy before it that harms what passes.

def test_something(bucket: Bucket) -> None:
    load_settings({}, results_url=bucket.url, s3_endpoint=bucket.endpoint)
"""

import re
import socket
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
import requests

from tests.listening import free_port, wait_listening

ACCESS_KEY = "AKIA-for-tests-4471"
SECRET_KEY = "secret-for-tests-9902"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": "us-east-1",
}
# moto's server checks only that there is a signature.
SIGNED = {"Authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/d/r/s3/aws4_request"}

SHARED_SERVER = "s3_server"
"""What a process of pytest-xdist is given: port and log of a server that all of them use."""

Fault = Literal["cut", "busy", "silent", "answer lost", "cut while reading"]


@dataclass(frozen=True)
class Bucket:
    """A bucket and how it is reached; `server` is the S3 server itself, `endpoint` what is used."""

    server: str
    endpoint: str
    name: str
    prefix: str = "results"

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    @property
    def settings(self) -> dict[str, str]:
        return {"results_url": self.url, "s3_endpoint": self.endpoint}

    def list_keys(self) -> list[str]:
        """All names in the bucket, in its order."""
        listed = requests.get(f"{self.server}/{self.name}?list-type=2", timeout=60).text
        return re.findall("<Key>(.*?)</Key>", listed)

    def head(self, key: str) -> requests.Response:
        return requests.head(f"{self.server}/{self.name}/{key}", headers=SIGNED, timeout=60)

    def allow(self, policy: str) -> None:
        """Set the bucket's policy."""
        url = f"{self.server}/{self.name}?policy"
        requests.put(url, data=policy, timeout=30).raise_for_status()

    def put(self, key: str, data: bytes) -> None:
        url = f"{self.server}/{self.name}/{quote(key)}"
        requests.put(url, data=data, headers=SIGNED, timeout=60).raise_for_status()

    def damage(self, key: str, data: bytes) -> None:
        """Have an object hold other bytes than were stored, as after a fault of the server's."""
        url = f"{self.server}/{self.name}/{quote(key)}"
        kept = {
            name: value
            for name, value in self.head(key).headers.items()
            if name.lower().startswith("x-amz-meta-")
        }
        requests.put(url, data=data, headers=SIGNED | kept, timeout=60).raise_for_status()

    def get(self, key: str) -> bytes:
        answer = requests.get(f"{self.server}/{self.name}/{quote(key)}", headers=SIGNED, timeout=60)
        answer.raise_for_status()
        return answer.content

    def delete(self, key: str) -> None:
        url = f"{self.server}/{self.name}/{quote(key)}"
        requests.delete(url, headers=SIGNED, timeout=30).raise_for_status()


@dataclass(frozen=True)
class StartedServer:
    """A server that listens soon. log: what it prints."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path


@contextmanager
def start_s3_server(folder: Path) -> Iterator[StartedServer]:
    """Run moto's S3 server for the block, which begins before it listens."""
    log = folder / "log"
    port = free_port()
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield StartedServer(process, port, log)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def s3_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a server for the session, or for all processes of pytest-xdist.

    Skips without moto and obstore.
    """
    pytest.importorskip("obstore", reason="obstore is not installed")
    pytest.importorskip("moto", reason="moto is not installed")
    port, log = getattr(pytestconfig, "workerinput", {}).get(SHARED_SERVER, (0, ""))
    if port:
        wait_listening(port, None, Path(log))
        yield f"http://127.0.0.1:{port}"
        return
    with start_s3_server(tmp_path_factory.mktemp("s3")) as server:
        wait_listening(server.port, server.process, server.log)
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket of the test's own, with its credentials in the environment."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    made = Bucket(s3_server, s3_server, f"test-{uuid.uuid4().hex}")
    requests.put(f"{s3_server}/{made.name}", timeout=30).raise_for_status()
    return made


@pytest.fixture
def faulty_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator["FaultyBucket"]:
    """The same behind a proxy whose faults the test chooses; clients in this process retry soon."""
    monkeypatch.setattr("upscaled.bucket.client.FIRST_RETRY_AFTER_S", 0.005)
    with _run_proxy(bucket.server) as proxy:
        yield FaultyBucket(proxy, replace(bucket, endpoint=proxy.url))


class _Proxy(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        host, port = upstream.removeprefix("http://").split(":")
        self.upstream = host, int(port)
        self.faults: list[Fault] = []
        self.lasting_fault: Fault | None = None
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self) -> Fault | None:
        return self.faults.pop(0) if self.faults else self.lasting_fault


class _Passage(socketserver.BaseRequestHandler):
    """One connection, and at most one fault of it."""

    server: _Proxy
    request: socket.socket

    def handle(self) -> None:
        fault = self.server.next_fault()
        if fault == "silent":
            self.server.ended.wait(60)
        elif fault == "busy":
            self.request.recv(2**16)
            body = b"<Error><Code>SlowDown</Code></Error>"
            head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\n"
            self.request.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
        elif fault != "cut":
            self._pass(fault)

    def _pass(self, fault: Fault | None) -> None:
        with socket.create_connection(self.server.upstream) as upstream:
            sending = threading.Thread(target=self._send, args=(upstream,))
            sending.start()
            passed_bytes = 0
            while data := upstream.recv(2**16):
                passed_bytes += len(data)
                if fault == "answer lost" or (fault and passed_bytes > 1_000_000):
                    break
                try:
                    self.request.sendall(data)
                except OSError:
                    break
            for sock in (self.request, upstream):
                _shut(sock)
            sending.join()

    def _send(self, upstream: socket.socket) -> None:
        try:
            while data := self.request.recv(2**16):
                upstream.sendall(data)
        except OSError:
            pass
        _shut(upstream)


@dataclass(frozen=True)
class FaultyBucket:
    """A bucket behind a proxy. Each new connection has the next fault, then the lasting one."""

    proxy: _Proxy
    bucket: Bucket

    def fail_next(self, *faults: Fault) -> None:
        self.proxy.faults = list(faults)

    def fail(self, fault: Fault | None) -> None:
        """Fail all connections from now on; None heals it."""
        self.proxy.lasting_fault = fault


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Have clients that are opened or used in the block wait no longer for an answer."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "bucket.client",
            "state.bucket",
            "state.bucket_results",
            "state.bucket_sources",
        ):
            patch.setattr(f"upscaled.{module}.ANSWER_WITHIN_S", seconds)
        yield


@contextmanager
def _run_proxy(upstream: str) -> Iterator[_Proxy]:
    with _Proxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            proxy.shutdown()
            thread.join()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
