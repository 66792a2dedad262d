import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from upscaled.process import channel


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_frame_arrives_as_it_was_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    channel.send(ends[0], b'{"kind": "x"}', b"\x00\xff payload")
    channel.send(ends[0], b"", b"")
    assert channel.receive(ends[1]) == (b'{"kind": "x"}', b"\x00\xff payload")
    assert channel.receive(ends[1]) == (b"", b"")


def test_a_large_payload_arrives_whole_on_the_event_loop(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    payload = bytes(range(256)) * 40_000  # 10 MB, far more than a socket buffers
    sender = threading.Thread(target=channel.send, args=(ends[0], b"h", payload))
    ends[1].setblocking(False)
    sender.start()
    frame = asyncio.run(channel.areceive(ends[1]))
    sender.join()
    assert frame == (b"h", payload)


def test_a_large_payload_leaves_the_event_loop_whole(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    payload = bytes(range(256)) * 40_000
    received: list[channel.Frame] = []
    receiver = threading.Thread(target=lambda: received.append(channel.receive(ends[1])))
    ends[0].setblocking(False)
    receiver.start()
    asyncio.run(channel.asend(ends[0], b"h", payload))
    receiver.join()
    assert received == [(b"h", payload)]


async def test_other_tasks_run_while_a_payload_crosses(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    payload = bytes(50_000_000)
    sender = threading.Thread(target=channel.send, args=(ends[0], b"h", payload))
    ends[1].setblocking(False)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    sender.start()
    await channel.areceive(ends[1])
    other.cancel()
    sender.join()
    # One turn for each chunk that was there to be read, so never a long stretch without.
    assert turns >= len(payload) // channel.CHUNK_BYTES


def test_a_header_at_its_limit_passes(ends: tuple[socket.socket, socket.socket]) -> None:
    header = b"h" * channel.MAX_HEADER_BYTES
    sender = threading.Thread(target=channel.send, args=(ends[0], header))
    sender.start()
    assert channel.receive(ends[1]).header == header
    sender.join()


def test_a_header_over_its_limit_is_not_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(channel.FrameError, match="header of 65537 bytes"):
        channel.send(ends[0], b"h" * (channel.MAX_HEADER_BYTES + 1))
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[1].recv(1)


@pytest.mark.parametrize(
    "lengths", [(channel.MAX_HEADER_BYTES + 1, 0), (2, channel.MAX_SOURCE_BYTES + 1)]
)
def test_a_worker_refuses_lengths_over_a_limit_before_it_reads_on(
    ends: tuple[socket.socket, socket.socket], lengths: tuple[int, int]
) -> None:
    ends[0].sendall(struct.pack("!IQ", *lengths))
    with pytest.raises(channel.FrameError):
        channel.receive(ends[1])


@pytest.mark.parametrize(
    "lengths", [(channel.MAX_HEADER_BYTES + 1, 0), (2, channel.MAX_RESULT_BYTES + 1)]
)
async def test_a_front_end_refuses_lengths_over_a_limit_before_it_reads_on(
    ends: tuple[socket.socket, socket.socket], lengths: tuple[int, int]
) -> None:
    ends[1].setblocking(False)
    ends[0].sendall(struct.pack("!IQ", *lengths))
    with pytest.raises(channel.FrameError):
        await channel.areceive(ends[1])


@pytest.mark.parametrize("cut_at", [0, 5, 12, 13, 14, 20])
def test_a_stream_that_ends_anywhere_is_an_end_and_not_a_frame(
    ends: tuple[socket.socket, socket.socket], cut_at: int
) -> None:
    whole = struct.pack("!IQ", 2, 10) + b"{}" + b"0123456789"
    ends[0].sendall(whole[:cut_at])
    ends[0].close()
    with pytest.raises(EOFError):
        channel.receive(ends[1])


async def test_a_receiver_on_the_loop_sees_the_end_too(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ends[1].setblocking(False)
    ends[0].sendall(struct.pack("!IQ", 2, 10) + b"{}0123")
    ends[0].close()
    with pytest.raises(EOFError):
        await channel.areceive(ends[1])
