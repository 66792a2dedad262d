"""What is written to a connection: together where it is short, and ahead to a silent client."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from upscaled.api.protocol.output import ANSWER_AHEAD, PROBE_EVERY_S, Output


class RecordingTransport(asyncio.Transport):
    """Transport of a real socket that keeps each write apart instead of sending it."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def transport() -> Iterator[RecordingTransport]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield RecordingTransport(ours)


def test_what_is_corked_leaves_in_one_write_and_before_the_connection_closes(
    transport: RecordingTransport,
) -> None:
    output = Output(transport)
    output.cork()
    output.write(b"head")
    output.write(b"body")
    assert transport.writes == []
    output.uncork()
    output.cork()
    output.write(b"last")
    output.close()
    assert transport.writes == [b"headbody", b"last"]


def test_a_client_that_stops_sending_is_probed_at_once_and_then_now_and_then(
    transport: RecordingTransport,
) -> None:
    """A client that has left is thereby noticed by two checks, a quarter of a second apart."""
    output = Output(transport)
    output.expect_silence(now_s=100.0)
    for now_s in (100.0, 100.25, 99.9 + PROBE_EVERY_S, 100.0 + PROBE_EVERY_S):
        assert not output.is_lost(now_s, ANSWER_AHEAD)
    assert transport.writes == [ANSWER_AHEAD[:1], ANSWER_AHEAD[1:2]]
    output.write(b"HTTP/1.1 200 OK")
    assert transport.writes[-1] == b"HTTP/1.1 200 OK"[2:]
