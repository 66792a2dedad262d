import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from upscaled.process import channel
from upscaled.process.channel import Frame
from upscaled.process.supervision import Watchdog

Pair = tuple[socket.socket, socket.socket]

WHOLE = struct.pack("!IQ", 2, 10) + b"{}" + b"0123456789"


@pytest.fixture
def ends() -> Iterator[Pair]:
    """Open a socket that does not block, as a parent's, and a blocking one, as a child's."""
    parent, child = socket.socketpair()
    parent.setblocking(False)
    with parent, child:
        yield parent, child


def watch(within_s: float = 5) -> Watchdog:
    return Watchdog(os.getpid(), within_s=within_s)


def in_thread(function: Any, *args: Any, **kwargs: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, kwargs=kwargs)
    thread.start()
    return thread


def test_a_frame_arrives_as_it_was_sent() -> None:
    one, other = socket.socketpair()
    with one, other:
        channel.send(one, b'{"kind": "x"}', b"\x00\xff payload")
        channel.send(one, b"", b"")
        assert channel.receive(other) == (b'{"kind": "x"}', b"\x00\xff payload", None)
        assert channel.receive(other) == (b"", b"", None)


@pytest.mark.parametrize("size", [0, 1, 10_000_000])  # 10 MB are more than a socket buffers
@pytest.mark.parametrize("is_async", [True, False])
def test_a_payload_of_any_size_arrives_whole_at_the_child(
    ends: Pair, size: int, is_async: bool
) -> None:
    payload = os.urandom(size)
    received: list[Frame] = []
    receiver = in_thread(lambda: received.append(channel.receive(ends[1])))
    if is_async:
        asyncio.run(channel.send_async(ends[0], b"h", payload))
    else:
        channel.send(ends[0], b"h", payload, watchdog=watch())
    receiver.join()
    assert received == [(b"h", payload, None)]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_large_payload_arrives_whole_at_the_parent(ends: Pair, is_async: bool) -> None:
    payload = os.urandom(10_000_000)
    sender = in_thread(channel.send, ends[1], b"h", payload)
    if is_async:
        frame = asyncio.run(channel.receive_async(ends[0]))
    else:
        frame = channel.receive(ends[0], watchdog=watch())
    sender.join()
    assert frame == (b"h", payload, None)


async def test_other_tasks_run_while_a_payload_crosses(ends: Pair) -> None:
    payload = bytes(50_000_000)
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count_steps())
    sender = in_thread(channel.send, ends[1], b"h", payload)
    await channel.receive_async(ends[0])
    other.cancel()
    sender.join()
    # One step for each chunk that was there to be read, so never a long stretch without.
    assert steps >= len(payload) // channel.CHUNK_BYTES


def test_a_header_at_its_limit_is_received(ends: Pair) -> None:
    header = b"h" * channel.MAX_HEADER_BYTES
    sender = in_thread(channel.send, ends[1], header)
    assert channel.receive(ends[0], watchdog=watch()).header == header
    sender.join()


def test_a_frame_over_a_limit_is_not_sent(ends: Pair) -> None:
    with pytest.raises(channel.FrameError, match="header of 1048577 bytes"):
        channel.send(ends[1], b"h" * (channel.MAX_HEADER_BYTES + 1))
    with pytest.raises(channel.FrameError, match="payload of 3 bytes, at most 2"):
        channel.send(ends[1], b"h", b"abc", max_payload_bytes=2)
    with pytest.raises(BlockingIOError):
        ends[0].recv(1)


@pytest.mark.parametrize("lengths", [(channel.MAX_HEADER_BYTES + 1, 0), (2, 1001)])
async def test_lengths_over_a_limit_are_refused_before_more_is_read(
    ends: Pair, lengths: tuple[int, int]
) -> None:
    for _ in range(2):
        ends[1].sendall(struct.pack("!IQ", *lengths))
    with pytest.raises(channel.FrameError):
        channel.receive(ends[0], watchdog=watch(), max_payload_bytes=1000)
    with pytest.raises(channel.FrameError):
        await channel.receive_async(ends[0], max_payload_bytes=1000)


@pytest.mark.parametrize("cut_at", [0, 5, 12, 13, 14, 20])
def test_a_stream_cut_within_a_frame_raises_eof(ends: Pair, cut_at: int) -> None:
    ends[0].sendall(WHOLE[:cut_at])
    ends[0].close()
    with pytest.raises(EOFError):
        channel.receive(ends[1])


@pytest.mark.parametrize("cut_at", [0, 18])
async def test_a_parent_detects_the_end_of_a_stream_too(ends: Pair, cut_at: int) -> None:
    ends[1].sendall(WHOLE[:cut_at])
    ends[1].close()
    with pytest.raises(EOFError):
        await channel.receive_async(ends[0])
    with pytest.raises(EOFError):
        channel.receive(ends[0], takes_fd=True, watchdog=watch())


def test_a_descriptor_arrives_with_its_frame_and_is_not_inherited(ends: Pair) -> None:
    reading, writing = os.pipe()
    channel.send(ends[1], b"{}", fd=writing)
    os.close(writing)
    header, payload, fd = channel.receive(ends[0], takes_fd=True, watchdog=watch())
    assert (header, payload) == (b"{}", b"")
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    os.close(fd)
    assert os.read(reading, 2) == b"x"
    os.close(reading)


def test_a_frame_without_a_descriptor_is_accepted(ends: Pair) -> None:
    channel.send(ends[1], b"{}")
    assert channel.receive(ends[0], takes_fd=True, watchdog=watch()).fd is None


@pytest.mark.parametrize("takes_fd", [True, False])
def test_a_descriptor_that_is_refused_is_not_left_open(ends: Pair, takes_fd: bool) -> None:
    reading, writing = os.pipe()
    lengths = struct.pack("!IQ", channel.MAX_HEADER_BYTES + 1, 0)
    socket.send_fds(ends[1], [lengths], [writing])
    os.close(writing)
    with pytest.raises(channel.FrameError):
        channel.receive(ends[0], takes_fd=takes_fd, watchdog=watch())
    assert os.read(reading, 1) == b""  # the other end is open nowhere any more
    os.close(reading)


def test_the_watchdog_ends_waiting_for_a_silent_child(ends: Pair) -> None:
    with pytest.raises(TimeoutError):
        channel.receive(ends[0], takes_fd=True, watchdog=watch(0.05))
    with pytest.raises(TimeoutError):
        channel.send(ends[0], b"", bytes(10_000_000), watchdog=watch(0.05))


@pytest.mark.parametrize("module", ["upscaled.decoder.child", "upscaled.worker.main"])
def test_a_child_without_an_event_loop_imports_none(module: str) -> None:
    program = f"import sys, {module}; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
