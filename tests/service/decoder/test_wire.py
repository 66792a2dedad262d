import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from upscaled.decoder.wire import (
    MAX_FACTS_BYTES,
    WireError,
    receive_reply,
    receive_source,
    send_reply,
    send_source,
)
from upscaled.process.watchdog import Watch

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def soon(within_s: float = 5) -> Watch:
    return Watch(os.getpid(), within_s=within_s)


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_a_file_arrives_whole(pair: Pair, size: int) -> None:
    source = os.urandom(size)
    sender = threading.Thread(target=send_source, args=(pair[0], source, soon()))
    sender.start()
    assert receive_source(pair[1]) == source
    sender.join()


def test_no_further_file_is_the_end(pair: Pair) -> None:
    pair[0].close()
    assert receive_source(pair[1]) is None


def test_a_file_that_stops_midway_is_an_error(pair: Pair) -> None:
    pair[0].send(struct.pack("!Q", 10) + b"half")
    pair[0].close()
    with pytest.raises(EOFError):
        receive_source(pair[1])


def test_facts_arrive_with_their_descriptor(pair: Pair) -> None:
    reading, writing = os.pipe()
    send_reply(pair[1], {"a": 1}, writing)
    os.close(writing)
    facts, fd = receive_reply(pair[0], soon())
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    os.close(fd)
    assert (facts, os.read(reading, 2)) == ({"a": 1}, b"x")
    os.close(reading)


def test_facts_arrive_without_a_descriptor(pair: Pair) -> None:
    send_reply(pair[1], {"refused": "x"})
    assert receive_reply(pair[0], soon()) == ({"refused": "x"}, None)


@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_what_are_no_facts_is_refused(pair: Pair, text: bytes) -> None:
    pair[1].sendall(struct.pack("!Q", len(text)) + text)
    with pytest.raises(WireError):
        receive_reply(pair[0], soon())


def test_facts_of_any_length_are_not_read(pair: Pair) -> None:
    pair[1].sendall(struct.pack("!Q", MAX_FACTS_BYTES + 1))
    with pytest.raises(WireError):
        receive_reply(pair[0], soon())


def test_nonsense_leaves_no_descriptor_open(pair: Pair) -> None:
    reading, writing = os.pipe()
    socket.send_fds(pair[1], [struct.pack("!Q", 2) + b"[]"], [writing])
    os.close(writing)
    with pytest.raises(WireError):
        receive_reply(pair[0], soon())
    assert os.read(reading, 1) == b""  # nobody holds the other end
    os.close(reading)


def test_silence_has_an_end(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        receive_reply(pair[0], soon(0.05))
    with pytest.raises(TimeoutError):
        send_source(pair[0], bytes(10_000_000), soon(0.05))


def test_a_process_that_ends_is_noticed(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(EOFError):
        receive_reply(pair[0], soon())
