"""A refusal reaches the client that is still sending."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.raw import Connection, seconds_since
from tests.service.api.serving import Service
from upscaled.api.wire.unread_body import SMALL_BODY_BYTES

JSON = "Content-Type: application/json"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large.jpg"
    path.write_bytes(bytes(30_000_000))
    return path


def curl(*arguments: str) -> tuple[str, dict[str, str]]:
    """The status and the JSON body curl got; its exit code must be 0."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "-w", "\n%{http_code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return status, json.loads(body)


@needs_curl
@pytest.mark.parametrize(
    "how",
    [
        [],  # over 1 MB: curl sends Expect: 100-continue
        ["-H", "Expect:"],
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        ["--http1.0"],
    ],
)
def test_curl_gets_the_refusal_of_a_large_file(
    service: Service, large_file: Path, how: list[str]
) -> None:
    key = ["-H", f"X-API-KEY: {service.key}"]
    form = ["-F", "scale=2", "-F", f"image=@{large_file}"]
    if how == ["--http1.0"]:
        how = [*how, "-H", "Expect:"]
    status, body = curl(f"{service.url}/v1/upscale", *key, *form, *how)
    assert (status, body["error_code"]) == ("400", "file_size_too_large")
    assert set(body) == {"error", "error_code"}


@needs_curl
@pytest.mark.parametrize("expect", [[], ["-H", "Expect:"]])
def test_curl_gets_a_refusal_that_needs_no_body(
    service: Service, large_file: Path, expect: list[str]
) -> None:
    form = ["-F", "scale=2", "-F", f"image=@{large_file}", *expect]
    status, body = curl(f"{service.url}/v1/upscale", *form)
    assert (status, body["error_code"]) == ("401", "invalid_auth_token")
    status, body = curl(f"{service.url}/v1/nothing", *form)
    assert (status, body["error_code"]) == ("404", "not_found")
    raw = ["-H", f"X-API-KEY: {service.key}", "--data-binary", f"@{large_file}", *expect]
    status, body = curl(f"{service.url}/v1/upscale", *raw)
    assert (status, body["error_code"]) == ("400", "unsupported_content_type")


def test_a_client_that_sends_everything_before_it_reads_gets_it_too(
    service: Service, large_file: Path
) -> None:
    with large_file.open("rb") as file:
        answer = requests.post(f"{service.url}/v1/upscale", data=file, timeout=20)
    assert_error(answer, 401, "invalid_auth_token")


def test_the_answer_does_not_wait_for_the_body(service: Service) -> None:
    with Connection(service) as connection:
        started = time.monotonic()
        connection.send_head("Content-Type: text/plain", "Content-Length: 20000000")
        answer = connection.receive()
        answer.assert_error(400, "unsupported_content_type")
        assert seconds_since(started) < 1
        assert answer.headers["connection"] == "close"
        connection.send(bytes(1_000_000))  # still taken, and thrown away
        assert connection.is_closed()


def test_a_silent_client_is_waited_for_only_so_long(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head("Content-Type: text/plain", "Content-Length: 20000000")
        connection.receive()
        started = time.monotonic()
        assert connection.is_closed(within_s=6)
        assert seconds_since(started) < 4


def test_a_client_that_waits_for_100_continue_is_told_no_at_once(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head(
            "Content-Type: text/plain", "Content-Length: 9", "Expect: 100-continue"
        )
        answer = connection.receive()
        answer.assert_error(400, "unsupported_content_type")


def test_one_that_may_go_on_is_told_to(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head(JSON, "Content-Length: 2", "Expect: 100-continue")
        assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"{}")
        connection.receive().assert_error(400, "missing_parameter")


def test_a_small_body_leaves_the_connection_usable(service: Service) -> None:
    with Connection(service) as connection:
        for _ in range(3):
            connection.send_head("Content-Type: text/plain", f"Content-Length: {SMALL_BODY_BYTES}")
            connection.send(bytes(SMALL_BODY_BYTES))
            answer = connection.receive()
            answer.assert_error(400, "unsupported_content_type")
            assert "connection" not in answer.headers
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200


def test_a_body_on_a_path_that_takes_none_is_thrown_away(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head("Content-Length: 5", method="GET", path="/healthz")
        connection.send(b"hello")
        assert connection.receive().status == 200
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200


def test_two_requests_in_one_packet_are_both_answered(service: Service) -> None:
    with Connection(service) as connection:
        one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.send(one + one.replace(b"healthz", b"nothing"))
        assert connection.receive().status == 200
        connection.receive().assert_error(404, "not_found")


def test_an_upload_is_not_closed(make_service: Callable[..., Service]) -> None:
    service = make_service()
    with requests.Session() as session:
        for _ in range(3):
            answer = session.get(f"{service.url}/healthz", timeout=5)
            assert "Connection" not in answer.headers
