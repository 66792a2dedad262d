"""End of a connection: clients that stop sending, stop reading, or disconnect."""

import asyncio
import http.client
import logging
import math
import socket
import time
from typing import Any

import pytest

from tests.certificates import Certificate
from tests.service.api.executors import HangingExecutor, HeldExecutor, SlowExecutor
from tests.service.api.protocol.turned_clock import turned_clock
from tests.service.api.raw import GET, Connection, connections_of
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api.protocol import http1, output
from upscaled.api.protocol.cycle import HttpFlowControl
from upscaled.api.protocol.framing import LengthReader
from upscaled.state import ApiKey

SMALL_WINDOW_BYTES = 2048
"""What a client's kernel receives unread: next to nothing."""

BOTH = pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])

LARGE = b"GET /assets/sample-x4.jpg HTTP/1.1\r\nHost: x\r\n\r\n"


# A client that shuts its sending side.


def test_pipelined_requests_are_answered_if_the_client_half_closes_between_two_responses(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pump_late(flow: HttpFlowControl) -> None:
        asyncio.get_running_loop().call_later(0.2, flow._pump)

    service = make_service()
    monkeypatch.setattr(HttpFlowControl, "pump_soon", pump_late)
    with Connection(service) as connection:
        connection.send(GET * 2)
        assert connection.receive().status == 200
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.receive().status == 200
        assert connection.is_closed()


@pytest.mark.parametrize("start", ["GET /healthz HTTP/1.0", "GET /healthz HTTP/1.1\r\nHost: x"])
def test_a_client_that_half_closes_with_its_first_packet_is_answered(
    service: Service, start: str
) -> None:
    with Connection(service) as connection:
        connection.send(start.encode() + b"\r\n\r\n")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.receive().status == 200
        assert connection.is_closed()


def test_a_response_with_probe_bytes_sent_ahead_is_complete(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 0.02)
    executor = HeldExecutor()
    service = make_service(executor)
    with Connection(service) as connection:
        connection.send_upload()
        connection.socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: connection.socket.recv(100, socket.MSG_PEEK) == output.ANSWER_AHEAD)
        time.sleep(0.1)  # further checks, which send nothing more
        assert connection.socket.recv(100, socket.MSG_PEEK) == output.ANSWER_AHEAD
        executor.may_end.set()
        answer = connection.receive()
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")


def test_a_progress_watcher_that_half_closes_receives_every_event(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two events digits of the next chunk's size are sent ahead."""
    monkeypatch.setattr(output, "PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 0.02)
    executor = HeldExecutor()
    service = make_service(executor)
    with Connection(service) as sender, Connection(service) as watcher:
        watcher.send_head(method="GET", path="/v1/progress/mine")
        sender.send_upload("X-Request-Id: mine")
        watcher.socket.shutdown(socket.SHUT_WR)
        ahead = b"\r\n" + output.CHUNK_AHEAD
        wait_until(lambda: watcher.socket.recv(65536, socket.MSG_PEEK).endswith(ahead))
        executor.may_end.set()
        response = http.client.HTTPResponse(watcher.socket)
        response.begin()
        events = response.read()
        assert events.startswith(b"event: progress\ndata: ")
        assert events.endswith(b'event: end\ndata: {"error_code": null}\n\n')


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /healthz HTT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_request_that_ends_early_is_answered_with_an_error(
    service: Service, begun: bytes
) -> None:
    with Connection(service) as connection:
        connection.send(begun)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.receive().status in (400, 401)
        assert connection.is_closed()


def test_an_idle_connection_closes_when_the_client_half_closes(service: Service) -> None:
    with Connection(service) as connection:
        connection.send(GET)
        connection.receive()
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.is_closed()


# A client that leaves.


@BOTH
@pytest.mark.parametrize("is_reset", [True, False])
def test_a_client_that_leaves_has_its_work_stopped(
    make_service: MakeService,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    is_reset: bool,
    is_tls: bool,
) -> None:
    if is_reset:  # which is noticed at once, by none of the checks
        monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 3600)
    executor = HangingExecutor()
    tls = certificate if is_tls else None
    service = make_service(executor, metering=True, credits=5, certificate=tls)
    with Connection(service) as connection:
        connection.send_upload()
        assert executor.has_begun.wait(60)
        assert service.balance() == 4
        if is_reset:
            connection.reset_on_close()
    assert executor.is_cancelled.wait(60)
    wait_until(lambda: service.balance() == 5)
    assert service.stored_files() == []
    assert service.state.credits.audit() == ()


def test_work_stops_for_a_client_that_half_closes_and_leaves_later(
    make_service: MakeService,
) -> None:
    executor = HangingExecutor()
    service = make_service(executor)
    with Connection(service) as connection:
        connection.send_upload()
        assert executor.has_begun.wait(60)
        connection.socket.shutdown(socket.SHUT_WR)
        assert not executor.is_cancelled.wait(0.5)
    assert executor.is_cancelled.wait(60)


def test_clients_that_disconnect_amid_a_response_log_no_error(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = make_service()
    for is_reset in (True, False) * 3:
        with Connection(service, receive_bytes=SMALL_WINDOW_BYTES) as connection:
            connection.send(LARGE * 30)
            time.sleep(0.1)
            if is_reset:
                connection.reset_on_close()
    wait_until(lambda: len(connections_of(service)) == 0)
    wait_until(lambda: service.app.state.context.reporter.in_flight == 0)
    service.app.state.context.reporter.flush()
    wrong = [each for each in caplog.records if each.exc_info or each.levelno >= logging.ERROR]
    assert not wrong
    assert 'error_code="internal_error",route="/assets' not in service.get("/metrics").text


# A client that does not read, or does not send.


@pytest.mark.parametrize(
    ("line", "count", "is_tls"),
    [
        *(("A: b", 1, False), ("A: b", 30, False), ("A: b", 1, True)),
        *(("Connection: close", 1, False), ("Connection: close", 30, False)),
    ],
)
def test_a_client_that_never_reads_is_cut_off(
    make_service: MakeService, certificate: Certificate, line: str, count: int, is_tls: bool
) -> None:
    service = make_service(write_timeout_s=0.5, certificate=certificate if is_tls else None)
    name = asyncio.run(service.state.results.store(bytes(5_000_000), "image/jpeg"))
    begun = time.monotonic()
    with Connection(service, receive_bytes=SMALL_WINDOW_BYTES) as connection:
        for _ in range(count):
            connection.send_head(line, method="GET", path=f"/public/result/{name}")
        wait_until(lambda: len(connections_of(service)) == 1)
        wait_until(lambda: len(connections_of(service)) == 0)
        assert time.monotonic() - begun > 0.4


@BOTH
def test_a_client_that_reads_slowly_receives_the_whole_response(
    make_service: MakeService,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    is_tls: bool,
) -> None:
    clock = turned_clock(monkeypatch)
    service = make_service(write_timeout_s=30, certificate=certificate if is_tls else None)
    name = asyncio.run(service.state.results.store(bytes(900_000), "image/jpeg"))
    with Connection(service, receive_bytes=SMALL_WINDOW_BYTES) as connection:
        connection.send_head(method="GET", path=f"/public/result/{name}")
        received, turned_s = b"", 0
        while len(received.partition(b"\r\n\r\n")[2]) < 900_000:
            received += connection.socket.recv(4096)
            # As long as the kernel's buffers do not hold the rest.
            if turned_s < min(len(received), 500_000) // 100_000 * 25:
                clock.turn(25)
                turned_s += 25
    assert b"content-length: 900000\r\n" in received


def test_pipelined_requests_are_buffered_up_to_a_limit(make_service: MakeService) -> None:
    executor = HangingExecutor()
    service = make_service(executor)
    with Connection(service, timeout_s=1) as connection:
        connection.send_upload()
        assert executor.has_begun.wait(60)
        with pytest.raises(TimeoutError):
            connection.send(GET * 1_000_000)
        (kept,) = list(connections_of(service)._open)
        assert isinstance(kept, http1.ContractProtocol)
        assert len(kept._pending) < http1.READ_AHEAD_BYTES + 256 * 1024
        assert service.app.state.context.reporter.in_flight == 1
        assert service.get("/healthz").status_code == 200
    assert executor.is_cancelled.wait(60)  # though its end is behind what is not read


@BOTH
def test_a_thousand_requests_sent_ahead_are_answered_in_turn(
    service: Service, tls_service: Service, is_tls: bool
) -> None:
    with Connection(tls_service if is_tls else service) as connection:
        connection.send(GET * 1000)
        assert {connection.receive().status for _ in range(1000)} == {200}


@pytest.mark.parametrize("begun", [b"{", b""])
def test_a_stalled_body_times_out(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http1, "BODY_STALL_S", 0.4)
    service = make_service()
    with Connection(service) as connection:
        connection.send_head("Content-Type: application/json", "Content-Length: 2000")
        connection.send(begun)
        connection.receive().assert_error(400, "invalid_request_body")
        assert connection.is_closed()


def test_a_slow_body_that_makes_progress_is_read(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = turned_clock(monkeypatch)
    service = make_service()
    body = b'{"scale": "2", "x": "' + b"y" * 100_000 + b'"}'
    with Connection(service) as connection:
        connection.send_head("Content-Type: application/json", f"Content-Length: {len(body)}")
        for at in range(10_000, len(body), 10_000):
            connection.send(body[at - 10_000 : at])
            wait_until(lambda at=at: unread_bytes(service) <= len(body) - at)  # type: ignore[misc]
            clock.turn(http1.BODY_STALL_S - 5)
        connection.send(body[at:])
        connection.receive().assert_error(400, "missing_parameter")


def unread_bytes(service: Service) -> float:
    """Return how much of the body on the only connection has not arrived yet."""
    for connection in connections_of(service)._open:
        assert isinstance(connection, http1.ContractProtocol)
        if isinstance(connection._body, LengthReader):
            return connection._body._left_bytes
    return math.inf


def test_a_body_whose_end_arrives_in_one_large_piece_leaves_its_connection_usable(
    service: Service,
) -> None:
    """The application takes such an end at once, and reads no more: nothing else would go on."""
    body = b'{"scale": "2", "x": "' + b"y" * 250_000 + b'"}'
    with Connection(service) as connection:
        for _ in range(10):
            connection.send_head("Content-Type: application/json", f"Content-Length: {len(body)}")
            time.sleep(0.02)  # the application waits for the body
            connection.send(body)
            connection.receive().assert_error(400, "missing_parameter")
            connection.send(GET)
            assert connection.receive().status == 200


def test_a_client_that_waits_for_100_continue_does_not_time_out(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = turned_clock(monkeypatch)
    service = make_service()
    verify = service.state.keys.verify

    def verify_slowly(secret: str) -> ApiKey | None:
        for _ in range(5):
            clock.turn(http1.BODY_STALL_S - 1)
        return verify(secret)

    monkeypatch.setattr(service.state.keys, "verify", verify_slowly)
    with Connection(service) as connection:
        lines = ("Content-Type: application/json", "Content-Length: 2", "Expect: 100-continue")
        connection.send_head(*lines)
        assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"{}")
        connection.receive().assert_error(400, "missing_parameter")


def test_a_declared_body_that_is_never_sent_times_out(make_service: MakeService) -> None:
    service = make_service(body_timeout_s=0.5)
    with Connection(service) as connection:
        lines = ("Content-Type: application/json", "Content-Length: 10", "Expect: 100-continue")
        connection.send_head(*lines)
        connection.receive().assert_error(400, "invalid_request_body")
        assert connection.is_closed()


def test_progress_events_that_are_never_read_end_with_their_request(
    make_service: MakeService,
) -> None:
    service = make_service(SlowExecutor(), write_timeout_s=0.5)
    with (
        Connection(service) as sender,
        Connection(service, receive_bytes=SMALL_WINDOW_BYTES) as watcher,
    ):
        watcher.send_head(method="GET", path="/v1/progress/mine")
        sender.send_upload("X-Request-Id: mine")
        assert sender.receive().status == 200
        wait_until(lambda: service.app.state.context.reporter.in_flight == 0)


def answers_of(service: Service) -> dict[str, Any]:
    upload = service.upload()
    return {
        "json": upload,
        "result": service.get(upload.json()["result_url"].removeprefix(service.url)),
        "binary": service.upload(headers=service.headers | {"Accept": "image/*"}),
        "head": service.get("/healthz"),
        "credits": service.get("/v1/credits", headers=service.headers),
        "figures": service.get("/metrics"),
        "page": service.get("/"),
        "401": service.get("/v1/credits"),
        "404": service.get("/nothing"),
        "405": service.get("/v1/upscale"),
        "400": service.upload(b"garbage"),
    }


def test_every_response_has_nosniff_and_cache_control(service: Service) -> None:
    for name, answer in answers_of(service).items():
        assert answer.headers["X-Content-Type-Options"] == "nosniff", name
        kept = answer.headers["Cache-Control"]
        assert kept == ("no-cache" if name == "page" else kept), name
        assert name == "page" or "no-store" in kept, (name, kept)
