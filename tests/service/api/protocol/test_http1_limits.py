"""Bound the connections of the server and of an address, without locking out other clients."""

import socket

import pytest

from tests.service.api.executors import HangingExecutor, LargeExecutor
from tests.service.api.raw import GET, Connection, connections_of
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until


def open_silently(service: Service, count: int, address: str = "127.0.0.1") -> list[socket.socket]:
    return [
        socket.create_connection((service.host, service.port), 5, (address, 0))
        for _ in range(count)
    ]


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nA: ", GET])
def test_idle_connections_lock_out_no_other_client(make_service: MakeService, begun: bytes) -> None:
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


def test_an_address_has_only_its_share_of_connections(make_service: MakeService) -> None:
    service = make_service(trusted_proxies="none", max_connections_per_address=10)
    held = open_silently(service, 50, "127.0.0.2")
    wait_until(lambda: len(connections_of(service)) == 10)
    other = open_silently(service, 3)
    wait_until(lambda: len(connections_of(service)) == 13)
    for each in held + other:
        each.close()


def test_a_proxy_s_address_is_bounded_only_in_all(make_service: MakeService) -> None:
    service = make_service(max_connections_per_address=10)
    held = open_silently(service, 50)
    wait_until(lambda: len(connections_of(service)) == 50)
    for each in held:
        each.close()
    wait_until(lambda: len(connections_of(service)) == 0)


def test_a_new_client_is_refused_where_all_connections_are_busy(make_service: MakeService) -> None:
    executor = HangingExecutor()
    service = make_service(executor, max_connections=1)
    with Connection(service) as busy:
        busy.send_upload()
        assert executor.has_begun.wait(60)
        with Connection(service) as late:
            answer = late.receive()
            answer.assert_error(429, "rate_limit_exceeded")
            assert answer.headers["retry-after"] == "1"
            assert late.is_closed()
    assert executor.is_cancelled.wait(60)
    wait_until(lambda: service.get("/healthz").status_code == 200)


def test_a_connection_with_unsent_bytes_is_not_evicted_for_a_new_client(
    make_service: MakeService,
) -> None:
    service = make_service(LargeExecutor(), max_connections=1)
    with Connection(service) as reader:
        reader.send_upload()
        assert reader.socket.recv(1, socket.MSG_PEEK)
        wait_until(lambda: service.app.state.context.reporter.in_flight == 0)
        with Connection(service) as late:
            late.receive().assert_error(429, "rate_limit_exceeded")
        received_bytes = 0
        while received_bytes < LargeExecutor.size_bytes:  # and the head
            data = reader.socket.recv(2**20)
            assert data
            received_bytes += len(data)


def test_discarded_bodies_lock_out_no_other_client(make_service: MakeService) -> None:
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
