import socket
from collections.abc import Callable

import pytest

from tests.service.api.executors import LargeExecutor
from tests.service.api.raw import Connection
from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until
from upscaled.api.unsent import UnsentResponses
from upscaled.errors import RateLimitExceeded


class Held:
    """A connection that holds so many bytes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def unsent_bytes(self) -> int:
        return self.size_bytes


def test_only_a_key_at_the_limit_of_unsent_bytes_is_refused() -> None:
    unsent = UnsentResponses(limit_bytes=100)
    first, second = Held(60), Held(39)
    for each in (first, second, first):  # two answers on one connection are counted once
        unsent.note(1, each)
    unsent.check(1)
    second.size_bytes = 40
    with pytest.raises(RateLimitExceeded) as caught:
        unsent.check(1)
    assert caught.value.reason == "unread_answers"
    unsent.check(2)
    first.size_bytes = 0
    unsent.check(1)


def test_responses_that_were_read_are_forgotten() -> None:
    unsent = UnsentResponses()
    held = Held(5)
    unsent.note(1, held)
    held.size_bytes = 0
    unsent.check(1)
    unsent.note(2, held)
    assert not unsent._of_key


def begin_reading(service: Service, key: str) -> Connection:
    """Send an upload, and wait for the first byte of its response."""
    connection = Connection(service, key=key)
    connection.send_upload()
    assert connection.socket.recv(1, socket.MSG_PEEK)
    return connection


def read_all(connection: Connection) -> None:
    left_bytes = LargeExecutor.size_bytes
    while left_bytes > 0:
        data = connection.socket.recv(2**20)
        assert data
        left_bytes -= len(data)


@pytest.mark.parametrize("is_read", [True, False], ids=["read in the end", "left"])
def test_a_key_that_does_not_read_its_images_is_refused(
    make_service: Callable[..., Service], is_read: bool
) -> None:
    service = make_service(LargeExecutor(), metering=True, credits=10)
    service.app.state.context.unsent.limit_bytes = LargeExecutor.size_bytes
    other = service.state.keys.create("other", credits=10)
    silent = [begin_reading(service, service.key) for _ in range(2)]
    wait_until(lambda: service.app.state.context.reporter.in_flight == 0)
    refused = service.upload(headers=service.headers | {"Accept": "image/*"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert service.balance() == 8
    with begin_reading(service, other) as connection:
        read_all(connection)
    for connection in silent:
        if is_read:
            read_all(connection)
        connection.socket.close()
    wait_until(lambda: service.upload().status_code == 200)
    wait_until(lambda: 'refusals_total{reason="unread_answers"}' in service.get("/metrics").text)
