"""What one key's clients do not read is held in memory only so far."""

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.service.api.executors import ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.raw import Connection
from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until
from upscaled.api.unread_answers import UnreadAnswers
from upscaled.errors import RateLimitExceeded
from upscaled.pool.executor import Upscaled, UpscaleRequest

IMAGE_BYTES = 24_000_000


class LargeExecutor(ResizingExecutor):
    """Gives more than the kernel's buffers of both sides take."""

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Upscaled:
        return replace(await super().upscale(source, request), data=bytes(IMAGE_BYTES))


class Held:
    """A connection that holds so many bytes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def unsent_bytes(self) -> int:
        return self.size_bytes


def test_a_key_is_refused_from_the_limit_on_and_no_other() -> None:
    unread = UnreadAnswers(limit_bytes=100)
    first, second = Held(60), Held(39)
    for each in (first, second, first):  # two answers on one connection are counted once
        unread.note(1, each.unsent_bytes)
    unread.check(1)
    second.size_bytes = 40
    with pytest.raises(RateLimitExceeded) as caught:
        unread.check(1)
    assert caught.value.reason == "unread_answers"
    unread.check(2)
    first.size_bytes = 0
    unread.check(1)


def test_what_was_read_leaves_no_trace() -> None:
    unread = UnreadAnswers()
    held = Held(5)
    unread.note(1, held.unsent_bytes)
    held.size_bytes = 0
    unread.check(1)
    unread.note(2, held.unsent_bytes)
    assert not unread._of_key


def ask(service: Service, key: str) -> Connection:
    """Send a picture, and read the first byte of its answer."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + picture()
        + b"\r\n--b--\r\n"
    )
    connection = Connection(service)
    head = (
        f"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nX-API-KEY: {key}\r\nAccept: image/*\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.send(head.encode() + body)
    assert connection.socket.recv(1, socket.MSG_PEEK)
    return connection


def read_all(connection: Connection) -> None:
    left_bytes = IMAGE_BYTES
    while left_bytes > 0:
        data = connection.socket.recv(2**20)
        assert data
        left_bytes -= len(data)


@pytest.mark.parametrize("is_read", [True, False], ids=["read in the end", "left"])
def test_a_key_that_does_not_read_its_images_gets_no_more_of_them(
    make_service: Callable[..., Service], is_read: bool
) -> None:
    service = make_service(LargeExecutor(), metering=True, credits=10)
    service.app.state.context.unread.limit_bytes = IMAGE_BYTES
    other = service.state.keys.create("other", credits=10)
    silent = [ask(service, service.key) for _ in range(2)]
    wait_until(lambda: service.app.state.report.under_way == 0)
    refused = service.upload(headers=service.headers | {"Accept": "image/*"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert service.balance() == 8
    with ask(service, other) as connection:
        read_all(connection)
    for connection in silent:
        if is_read:
            read_all(connection)
        connection.socket.close()
    wait_until(lambda: service.upload().status_code == 200)
    wait_until(lambda: 'refusals_total{reason="unread_answers"}' in service.get("/metrics").text)
