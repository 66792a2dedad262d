import logging
import socket
import sys
import time

import pytest

from tests.service.api.executors import HeldExecutor
from tests.service.api.protocol.turned_clock import turned_clock
from tests.service.api.raw import Connection
from tests.service.api.serving import MakeService, Service
from upscaled.api.protocol import http1
from upscaled.api.protocol.head import MAX_HEAD_BYTES

JSON = "Content-Type: application/json"


def test_malformed_http_is_counted_and_logged(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "upscaled.api.telemetry.access_log")
    service = make_service()
    with Connection(service) as connection:
        connection.send(b"nonsense-4711\r\n\r\n")
        request_id = connection.receive().headers["x-request-id"]
    refused = (
        'upscaled_requests_total{error_code="invalid_request_body",route="other",status="400"}'
    )
    assert f"{refused} 1.0" in service.get("/metrics").text
    lines = [getattr(each, "fields", {}) for each in caplog.records]
    (fields,) = [each for each in lines if each.get("request_id") == request_id]
    assert (fields["outcome"], fields["method"]) == ("refused", "other")
    assert "4711" not in str(fields)


@pytest.mark.parametrize(
    ("path", "allow"),
    [("/v1/upscale", "POST"), ("/v1/upscale?a=b", "POST"), ("/healthz", "GET, HEAD")],
)
def test_an_unknown_method_is_405_with_the_allowed_methods(
    service: Service, path: str, allow: str
) -> None:
    with Connection(service) as connection:
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200
        connection.send(f"FOO {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode())
        answer = connection.receive()
        answer.assert_error(405, "method_not_allowed")
        assert answer.headers["allow"] == allow
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200


def test_an_unknown_method_on_an_unknown_path_is_not_found(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head(method="FOO", path="/nothing")
        connection.receive().assert_error(404, "not_found")


def test_a_head_of_the_limit_passes_and_a_longer_one_does_not(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head("X: " + "y" * (MAX_HEAD_BYTES - 1000), method="GET", path="/healthz")
        assert connection.receive().status == 200
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200
    with Connection(service) as connection:
        begun = b"GET /healthz HTTP/1.1\r\nX: "
        connection.send(begun + b"y" * (MAX_HEAD_BYTES + 1 - len(begun)))
        connection.receive().assert_error(400, "invalid_request_body")
        assert connection.is_closed()


@pytest.mark.parametrize("before", [0, 1])
def test_a_head_beyond_the_limit_is_refused_also_when_received_in_one_read(
    service: Service, before: int
) -> None:
    """Also behind another request, where a count of reads would begin too late."""
    with Connection(service) as connection:
        small = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        large = small[:-2] + b"X: " + b"y" * 66_000 + b"\r\n\r\n"
        connection.send(small * before + large + small)
        for _ in range(before):
            assert connection.receive().status == 200
        refusal = connection.receive()
        refusal.assert_error(400, "invalid_request_body")
        assert connection.is_closed()
    assert refusal.headers["x-content-type-options"] == "nosniff"
    assert refusal.headers["cache-control"] == "no-store"


def test_a_client_that_still_sends_its_endless_head_can_read_the_refusal(service: Service) -> None:
    with Connection(service) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000 + b"\r\n\r\n")
        connection.receive().assert_error(400, "invalid_request_body")


@pytest.mark.parametrize(
    ("begun", "repeated"),
    [
        (b"", b"a"),
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"a"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"A:b\r\n"),
        (b"", b"\r\n"),
        (b"CHUNKED", b"5"),
        (b"CHUNKED5;", b"a"),
        (b"CHUNKED0\r\nX-End: ", b"a"),
        (b"CHUNKED0\r\n", b"A: b\r\n"),
        (b"CHUNKED", b"1;aaaaaaaaaaaaaaaaa\r\na\r\n"),
    ],
)
def test_an_endless_head_or_chunk_line_is_cut_off(
    service: Service, begun: bytes, repeated: bytes
) -> None:
    head = b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent_bytes = 0
    with Connection(service) as connection:
        connection.send(begun.replace(b"CHUNKED", head))
        try:
            while sent_bytes < 64 * 2**20:
                connection.send(repeated * 10_000)
                sent_bytes += 10_000 * len(repeated)
        except ConnectionError:
            pass
    assert sent_bytes < 32 * 2**20  # what the kernel's buffers hold, and what is read and dropped


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_never_ends_is_refused_at_the_time_limit(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http1, "HEAD_TIMEOUT_S", 0.2)
    service = make_service()
    started = time.monotonic()
    with Connection(service) as connection:
        connection.send(begun)
        assert connection.is_closed()
        assert time.monotonic() - started > 0.1


def test_a_slow_answer_is_not_cut_off(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = turned_clock(monkeypatch)
    executor = HeldExecutor()
    service = make_service(executor)
    with Connection(service) as connection:
        connection.send_upload()
        assert executor.has_begun.wait(60)
        clock.turn(10 * http1.HEAD_TIMEOUT_S)
        executor.may_end.set()
        assert connection.receive().status == 200


OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")


@pytest.mark.parametrize("pause_s", [0, 0.05])
def test_the_http2_upgrade_of_java_is_declined_and_its_body_read(
    service: Service, pause_s: float
) -> None:
    with Connection(service) as connection:
        for _ in range(2):
            connection.send_head(*OFFER, JSON, "Content-Length: 10")
            time.sleep(pause_s)
            connection.send(b'{"scale":')
            time.sleep(pause_s)
            connection.send(b"}")
            connection.receive().assert_error(400, "invalid_request_body")
            connection.send_head(*OFFER, JSON, "Content-Length: 2")
            connection.send(b"{}")
            connection.receive().assert_error(400, "missing_parameter")


def test_a_websocket_is_declined_like_any_other_get(service: Service) -> None:
    with Connection(service) as connection:
        offer = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        connection.send_head(*offer, method="GET", path="/healthz")
        assert connection.receive().status == 200
        connection.send_head(*offer, "Connection: close", method="GET", path="/nothing")
        connection.receive().assert_error(404, "not_found")
        assert connection.is_closed()


def test_a_thousand_offers_in_one_packet_are_all_declined(service: Service) -> None:
    offer = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    with Connection(service) as connection:
        connection.send(offer * 1000)
        for _ in range(1000):
            connection.receive().assert_error(404, "not_found")


_DATA_SEGMENTS_IN = slice(152, 156)  # of Linux's struct tcp_info


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux counts segments")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/upscale", 401), ("GET", "/healthz", 200), ("GET", "/nothing", 404)],
)
def test_head_and_body_of_a_short_response_leave_in_one_segment(
    service: Service, method: str, path: str, status: int
) -> None:
    """A proxy that has the head alone may lose the body of a client that stops at it."""
    with Connection(service, key="wrong") as connection:
        connection.send_head("Content-Length: 0", method=method, path=path)
        assert connection.receive().status == status
        info = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    assert int.from_bytes(info[_DATA_SEGMENTS_IN], sys.byteorder) == 1


def test_a_response_to_head_leaves_at_once(service: Service) -> None:
    with Connection(service) as connection:
        for _ in range(2):
            connection.send_head(method="HEAD", path="/healthz")
            assert b"content-length: 0" not in connection.receive_head()
