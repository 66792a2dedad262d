"""How a connection ends: clients that stop sending, stop reading, leave, or are too many."""

import asyncio
import http.client
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.service.api.executors import HangingExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.raw import Connection
from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until
from upscaled.api.protocol import http1, output
from upscaled.api.protocol.registry import Connections
from upscaled.pool.executor import UpscaleRequest
from upscaled.state import ApiKey
from upscaled.upscale.result import Result

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /assets/sample-x4.jpg HTTP/1.1\r\nHost: x\r\n\r\n"
Make = Callable[..., Service]


class SlowExecutor(ResizingExecutor):
    """Takes its time."""

    seconds = 1.5

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        await asyncio.sleep(self.seconds)
        return await super().upscale(source, request)


class LargeExecutor(ResizingExecutor):
    """Gives more than the kernel's buffers of both sides take."""

    size_bytes = 32_000_000

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        result = await super().upscale(source, request)
        return replace(result, data=bytes(self.size_bytes))


def send_upload(connection: Connection, *lines: str) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + picture()
        + b"\r\n--b--\r\n"
    )
    form = "Content-Type: multipart/form-data; boundary=b"
    connection.send_head(form, f"Content-Length: {len(body)}", "Accept: image/*", *lines)
    connection.send(body)


def connections_of(service: Service) -> Connections:
    registry: Connections = service.app.state.connections
    return registry


def small_window(service: Service) -> Connection:
    """A connection whose client's kernel takes next to nothing."""
    connection = Connection(service)
    connection.socket.close()
    connection.socket = socket.socket()
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.socket.settimeout(15)
    connection.socket.connect((service.host, service.port))
    return connection


# A client that shuts its sending side.


def test_a_client_that_half_closes_gets_all_its_answers(service: Service) -> None:
    with Connection(service) as connection:
        send_upload(connection)
        connection.send(GET * 2)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.receive().headers["content-type"] == "image/jpeg"
        assert [connection.receive().status for _ in range(2)] == [200, 200]
        assert connection.is_closed()


def test_what_was_sent_ahead_is_answered_also_if_the_end_comes_between_two_answers(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pump_late(connection: http1.ContractProtocol) -> None:
        connection._loop.call_later(0.2, connection._pump_now)

    service = make_service()
    monkeypatch.setattr(http1.ContractProtocol, "pump_soon", pump_late)
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


def test_an_answer_begun_early_to_see_whether_its_client_is_there_is_whole(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PROBE_AFTER_S", 0.0)
    monkeypatch.setattr(output, "PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 0.02)
    service = make_service(SlowExecutor())
    with Connection(service) as connection:
        send_upload(connection)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.socket.recv(1, socket.MSG_PEEK) == b"H"
        time.sleep(0.5)
        assert connection.socket.recv(100, socket.MSG_PEEK) == b"HTTP/1.1 "
        answer = connection.receive()
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")


def test_a_watcher_that_half_closes_gets_every_event(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two events digits of the next chunk's size are sent ahead."""
    monkeypatch.setattr(output, "PROBE_AFTER_S", 0.0)
    monkeypatch.setattr(output, "PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("upscaled.api.protocol.registry.CHECK_EVERY_S", 0.02)
    service = make_service(SlowExecutor())
    with Connection(service) as sender, Connection(service) as watcher:
        watcher.send_head(method="GET", path="/v1/progress/mine")
        send_upload(sender, "X-Request-Id: mine")
        watcher.socket.shutdown(socket.SHUT_WR)
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
def test_a_request_that_ends_early_is_refused_or_gets_another_error(
    service: Service, begun: bytes
) -> None:
    with Connection(service) as connection:
        connection.send(begun)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.receive().status in (400, 401)
        assert connection.is_closed()


def test_an_idle_connection_ends_with_its_client_s_side(service: Service) -> None:
    with Connection(service) as connection:
        connection.send(GET)
        connection.receive()
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.is_closed(within_s=1)


# A client that leaves.


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_client_that_leaves_has_its_work_stopped(make_service: Make, is_reset: bool) -> None:
    executor = HangingExecutor()
    service = make_service(executor, metering=True, credits=5)
    with Connection(service) as connection:
        send_upload(connection)
        assert executor.has_begun.wait(5)
        if is_reset:
            reset = struct.pack("ii", 1, 0)
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    assert executor.is_cancelled.wait(1 if is_reset else 5)
    wait_until(lambda: service.balance() == 5)


def test_work_stops_for_a_client_that_half_closes_and_leaves_later(make_service: Make) -> None:
    executor = HangingExecutor()
    service = make_service(executor)
    with Connection(service) as connection:
        send_upload(connection)
        assert executor.has_begun.wait(5)
        connection.socket.shutdown(socket.SHUT_WR)
        assert not executor.is_cancelled.wait(0.5)
    assert executor.is_cancelled.wait(10)


def test_clients_that_leave_amid_their_answers_are_no_errors(
    make_service: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = make_service()
    for is_reset in (True, False) * 3:
        with small_window(service) as connection:
            connection.send(LARGE * 30)
            time.sleep(0.1)
            if is_reset:
                reset = struct.pack("ii", 1, 0)
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    wait_until(lambda: len(connections_of(service)) == 0)
    wait_until(lambda: service.app.state.context.reporter.in_flight == 0)
    service.app.state.context.reporter.flush()
    wrong = [each for each in caplog.records if each.exc_info or each.levelno >= logging.ERROR]
    assert not wrong
    assert 'error_code="internal_error",route="/assets' not in service.get("/metrics").text


# A client that does not read, or does not send.


@pytest.mark.parametrize("line", ["A: b", "Connection: close"])
@pytest.mark.parametrize("count", [1, 30])
def test_a_client_that_never_reads_is_cut_off(make_service: Make, line: str, count: int) -> None:
    service = make_service(write_timeout_s=0.5)
    name = asyncio.run(service.state.results.store(bytes(2_000_000), "image/jpeg"))
    begun = time.monotonic()
    with small_window(service) as connection:
        for _ in range(count):
            connection.send_head(line, method="GET", path=f"/public/result/{name}")
        wait_until(lambda: len(connections_of(service)) == 1)
        wait_until(lambda: len(connections_of(service)) == 0, timeout_s=10)
        assert time.monotonic() - begun > 0.4


def test_a_client_that_reads_slowly_gets_it_all(make_service: Make) -> None:
    service = make_service(write_timeout_s=0.5)
    with small_window(service) as connection:
        connection.send(LARGE)
        begun, received = time.monotonic(), b""
        while not received.endswith(b"\xff\xd9"):
            received += connection.socket.recv(4096)
            time.sleep(0.03)
        assert time.monotonic() - begun > 3 * 0.5
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head


def test_requests_sent_ahead_are_kept_only_so_far(make_service: Make) -> None:
    executor = HangingExecutor()
    service = make_service(executor)
    with Connection(service, timeout_s=1) as connection:
        send_upload(connection)
        assert executor.has_begun.wait(5)
        with pytest.raises(TimeoutError):
            connection.send(GET * 1_000_000)
        (kept,) = list(connections_of(service)._open)
        assert isinstance(kept, http1.ContractProtocol)
        assert len(kept._unread) < http1.READ_AHEAD_BYTES + 256 * 1024
        assert service.app.state.context.reporter.in_flight == 1
        assert service.get("/healthz").status_code == 200
    assert executor.is_cancelled.wait(10)  # though its end is behind what is not read


def test_ten_thousand_requests_sent_ahead_are_answered_in_turn(service: Service) -> None:
    with Connection(service) as connection:
        connection.send(GET * 1000)
        assert {connection.receive().status for _ in range(1000)} == {200}


@pytest.mark.parametrize("begun", [b"{", b""])
def test_a_body_that_does_not_move_on_is_given_up(
    make_service: Make, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http1, "BODY_STALL_S", 0.4)
    service = make_service()
    with Connection(service) as connection:
        connection.send_head("Content-Type: application/json", "Content-Length: 2000")
        connection.send(begun)
        connection.receive().assert_error(400, "invalid_request_body")
        assert connection.is_closed()


def test_a_body_that_comes_slowly_but_moves_on_is_read(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "BODY_STALL_S", 1.0)
    service = make_service()
    body = b'{"scale": "2", "x": "' + b"y" * 2000 + b'"}'
    with Connection(service) as connection:
        connection.send_head("Content-Type: application/json", f"Content-Length: {len(body)}")
        for at in range(0, len(body), 100):
            connection.send(body[at : at + 100])
            time.sleep(0.06)
        connection.receive().assert_error(400, "missing_parameter")


def test_a_client_that_waits_for_100_continue_is_not_taken_for_slow(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    verify = service.state.keys.verify

    def verify_slowly(secret: str) -> ApiKey | None:
        time.sleep(1)
        return verify(secret)

    monkeypatch.setattr(http1, "BODY_STALL_S", 0.3)
    monkeypatch.setattr(service.state.keys, "verify", verify_slowly)
    with Connection(service) as connection:
        lines = ("Content-Type: application/json", "Content-Length: 2", "Expect: 100-continue")
        connection.send_head(*lines)
        assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"{}")
        connection.receive().assert_error(400, "missing_parameter")


def test_a_client_that_never_sends_the_body_it_announced_is_given_up(make_service: Make) -> None:
    service = make_service(body_timeout_s=0.5)
    with Connection(service) as connection:
        lines = ("Content-Type: application/json", "Content-Length: 10", "Expect: 100-continue")
        connection.send_head(*lines)
        connection.receive().assert_error(400, "invalid_request_body")
        assert connection.is_closed()


# Too many clients.


def open_silently(service: Service, count: int, address: str = "127.0.0.1") -> list[socket.socket]:
    return [
        socket.create_connection((service.host, service.port), 5, (address, 0))
        for _ in range(count)
    ]


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nA: ", GET])
def test_silent_connections_lock_no_other_out(make_service: Make, begun: bytes) -> None:
    service = make_service(max_connections=20)
    held = open_silently(service, 15)
    for each in held:
        each.sendall(begun)
    held += open_silently(service, 40)
    for _ in range(5):
        assert service.get("/healthz").status_code == 200
    assert len(connections_of(service)) <= 20
    for each in held:
        each.close()


def test_an_address_has_only_its_share_of_connections(make_service: Make) -> None:
    service = make_service(trusted_proxies="none", max_connections_per_address=10)
    held = open_silently(service, 50, "127.0.0.2")
    wait_until(lambda: len(connections_of(service)) == 10)
    other = open_silently(service, 3)
    wait_until(lambda: len(connections_of(service)) == 13)
    for each in held + other:
        each.close()


def test_a_proxy_s_address_is_bounded_only_in_all(make_service: Make) -> None:
    service = make_service(max_connections_per_address=10)
    held = open_silently(service, 50)
    wait_until(lambda: len(connections_of(service)) == 50)
    for each in held:
        each.close()
    wait_until(lambda: len(connections_of(service)) == 0)


def test_a_new_client_is_refused_where_all_connections_are_busy(make_service: Make) -> None:
    executor = HangingExecutor()
    service = make_service(executor, max_connections=1)
    with Connection(service) as busy:
        send_upload(busy)
        assert executor.has_begun.wait(5)
        with Connection(service) as late:
            answer = late.receive()
            answer.assert_error(429, "rate_limit_exceeded")
            assert answer.headers["retry-after"] == "1"
            assert late.is_closed()
    assert executor.is_cancelled.wait(5)
    wait_until(lambda: service.get("/healthz").status_code == 200)


def test_an_answer_that_is_still_being_taken_is_not_cut_off_for_a_new_client(
    make_service: Make,
) -> None:
    service = make_service(LargeExecutor(), max_connections=1)
    with Connection(service) as reader:
        send_upload(reader)
        assert reader.socket.recv(1, socket.MSG_PEEK)
        wait_until(lambda: service.app.state.context.reporter.in_flight == 0)
        with Connection(service) as late:
            late.receive().assert_error(429, "rate_limit_exceeded")
        received_bytes = 0
        while received_bytes < LargeExecutor.size_bytes:  # and the head
            data = reader.socket.recv(2**20)
            assert data
            received_bytes += len(data)


def test_bodies_that_are_only_dropped_lock_no_other_out(make_service: Make) -> None:
    service = make_service(max_connections=10)
    held = open_silently(service, 10)
    for each in held:
        each.sendall(b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{")
    for each in held:
        assert each.recv(12) == b"HTTP/1.1 401"
    for _ in range(5):
        assert service.get("/healthz").status_code == 200
    for each in held:
        each.close()


def test_watched_events_that_are_never_read_end_with_their_request(make_service: Make) -> None:
    service = make_service(SlowExecutor(), write_timeout_s=0.5)
    with Connection(service) as sender, small_window(service) as watcher:
        watcher.send_head(method="GET", path="/v1/progress/mine")
        send_upload(sender, "X-Request-Id: mine")
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


def test_every_answer_says_what_it_is_and_that_it_is_not_kept(service: Service) -> None:
    for name, answer in answers_of(service).items():
        assert answer.headers["X-Content-Type-Options"] == "nosniff", name
        kept = answer.headers["Cache-Control"]
        assert kept == ("no-cache" if name == "page" else kept), name
        assert name == "page" or "no-store" in kept, (name, kept)
