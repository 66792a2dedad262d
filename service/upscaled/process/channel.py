"""Frames over a Unix socket pair, and shared memory: the messages of parent and child processes.

    4 bytes   length of the header, big endian; a file descriptor may travel with them
    8 bytes   length of the payload, big endian
    header    JSON text; the two processes define its content
    payload   raw bytes, for example an encoded image, or nothing

Nothing is pickled, so a child that an image controls cannot make its parent run anything, and
every length is checked before memory is allocated for it. `send` and `receive` block and are for
threads; `send_async` and `receive_async` give the event loop back after each chunk. Only these
import asyncio: it would be a quarter of what the start of a decoder takes, which has no event loop.

Shared memory is anonymous: it has no name, so nothing is left of it once no process holds it. Only
`read_memory` imports numpy, which the front end does without.
"""

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

from upscaled.process.supervision import Watchdog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_HEADER_BYTES: Final = 1024 * 1024
"""Limits what a child can make its parent parse: an image's metadata with long texts fits."""

MAX_PAYLOAD_BYTES: Final = 2**31
"""Limits a payload where no lower limit is given: the highest that `max_file_bytes` may be."""

CHUNK_BYTES: Final = 256 * 1024
"""Limits how much is sent or received before the event loop runs other work."""

_WRITE_CHUNK_BYTES: Final = 64 * 1024 * 1024
"""Limits one write: the kernel writes at most 2 GiB at once."""

_LENGTHS: Final = struct.Struct("!IQ")


class FrameError(Exception):
    """The other process sent bytes that are no frame of the protocol, or too many of them."""


class Frame(NamedTuple):
    """Received frame. `fd`, where one came, is the receiver's to close."""

    header: bytes
    payload: bytes
    fd: int | None = None


def send(
    sock: socket.socket,
    header: bytes,
    payload: bytes | memoryview = b"",
    *,
    fd: int | None = None,
    watchdog: Watchdog | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> None:
    """Send one frame.

    Args:
        sock: a blocking socket without `watchdog`, one that does not block with it.
        fd: a file descriptor to pass to the other process; it stays open here.
        watchdog: of the other process; waits for the socket before each chunk.

    Raises:
        FrameError: header or payload are over their limit; nothing has been sent.
        OSError: the other process is gone.
        TimeoutError, ProcessHangs: the watchdog gives the other process up.
    """
    begin = _begin(header, len(payload), max_payload_bytes)
    for part in (memoryview(begin), memoryview(payload)):
        while part:
            if watchdog is not None:
                watchdog.wait_writable(sock)
            chunk = part[:CHUNK_BYTES]
            sent = sock.send(chunk) if fd is None else socket.send_fds(sock, [chunk], [fd])
            part, fd = part[sent:], None


def receive(
    sock: socket.socket,
    *,
    takes_fd: bool = False,
    watchdog: Watchdog | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> Frame:
    """Receive one frame; `sock` and `watchdog` are as for `send`, and its errors too.

    takes_fd: a file descriptor may come with it; else the kernel closes one. EOFError: the other
    process closed its end, between frames or within one.
    """
    fds: list[int] = []
    try:
        lengths = _receive(sock, _LENGTHS.size, watchdog, fds if takes_fd else None)
        header_bytes, payload_bytes = _unpack(lengths, max_payload_bytes)
        header = _receive(sock, header_bytes, watchdog)
        return Frame(header, _receive(sock, payload_bytes, watchdog), *fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


async def send_async(sock: socket.socket, header: bytes, payload: bytes = b"") -> None:
    """Send one frame on a socket that does not block; raises as `send` does.

    Cancelled half-way it leaves a torn frame behind, after which the connection is of no use.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    view = memoryview(payload)
    # One send wakes the other process once: a small frame goes as a whole.
    begin = _begin(header, len(payload), MAX_PAYLOAD_BYTES)
    await loop.sock_sendall(sock, begin + view[:CHUNK_BYTES])
    for at in range(CHUNK_BYTES, len(payload), CHUNK_BYTES):
        await asyncio.sleep(0)
        await loop.sock_sendall(sock, view[at : at + CHUNK_BYTES])


async def receive_async(
    sock: socket.socket, *, max_payload_bytes: int = MAX_PAYLOAD_BYTES
) -> Frame:
    """Receive one frame on a socket that does not block; raises as `receive` does.

    Cancelled half-way it has lost part of a frame, after which the connection is of no use.
    """
    import asyncio

    lengths = await _receive_async(sock, _LENGTHS.size)
    header_bytes, payload_bytes = _unpack(lengths, max_payload_bytes)
    header = await _receive_async(sock, header_bytes)
    # sock_recv returns at once while bytes are there: a fast child would block the event loop.
    await asyncio.sleep(0)
    return Frame(header, await _receive_async(sock, payload_bytes))


def _begin(header: bytes, payload_bytes: int, max_payload_bytes: int) -> bytes:
    _check(len(header), payload_bytes, max_payload_bytes)
    return _LENGTHS.pack(len(header), payload_bytes) + header


def _unpack(lengths: bytes, max_payload_bytes: int) -> tuple[int, int]:
    header_bytes, payload_bytes = _LENGTHS.unpack(lengths)
    _check(header_bytes, payload_bytes, max_payload_bytes)
    return header_bytes, payload_bytes


def _check(header_bytes: int, payload_bytes: int, max_payload_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES:
        raise FrameError(f"header of {header_bytes} bytes, at most {MAX_HEADER_BYTES}")
    if payload_bytes > max_payload_bytes:
        raise FrameError(f"payload of {payload_bytes} bytes, at most {max_payload_bytes}")


def _receive(
    sock: socket.socket,
    size_bytes: int,
    watchdog: Watchdog | None,
    fds: list[int] | None = None,
) -> bytes:
    """Receive so many bytes, and into `fds` the descriptor that came with the first of them."""
    received = BytesIO()
    while (at := received.tell()) < size_bytes:
        if watchdog is not None:
            watchdog.wait_readable(sock)
        wanted = min(size_bytes - at, CHUNK_BYTES)
        if fds is not None and at == 0:
            chunk, came, _, _ = socket.recv_fds(sock, wanted, 1)
            fds += came
            for fd in fds:
                os.set_inheritable(fd, False)
        else:
            chunk = sock.recv(wanted)
        if not chunk:
            raise EOFError
        received.write(chunk)
    return received.getvalue()


async def _receive_async(sock: socket.socket, size_bytes: int) -> bytes:
    # BytesIO grows in place and hands its buffer over, so a result of 100 MB is never copied in
    # one go: that would hold up the event loop for tens of milliseconds.
    import asyncio

    loop = asyncio.get_running_loop()
    received = BytesIO()
    # One buffer for all chunks: to map and unmap the memory of each took as long as to read it.
    buffer = memoryview(bytearray(min(size_bytes, CHUNK_BYTES)))
    while (left_bytes := size_bytes - received.tell()) > 0:
        count = await loop.sock_recv_into(sock, buffer[:left_bytes])
        if not count:
            raise EOFError
        received.write(buffer[:count])
        if count == CHUNK_BYTES:
            await asyncio.sleep(0)
    return received.getvalue()


def can_seal() -> bool:
    """Return whether this system has memory files that can be sealed against change (Linux)."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


def write_memory(parts: Iterable[memoryview], *, is_sealed: bool) -> int:
    """Return the descriptor of new anonymous memory that holds `parts` one behind the other.

    Sealed memory can neither be written nor resized by any process. Otherwise it is a temporary
    file without a name.

    Raises:
        OSError: no memory is left, or this process may not write so much.
    """
    if is_sealed:
        fd = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        for part in parts:
            rest = part.cast("B")
            while rest:
                rest = rest[os.write(fd, rest[:_WRITE_CHUNK_BYTES]) :]
        if is_sealed:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _seals())
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_memory(fd: int, size_bytes: int) -> "NDArray[np.uint8]":
    """Return the `size_bytes` that another process wrote by `write_memory`; `fd` stays open.

    Sealed memory is mapped, not copied; what is written to the array stays in this process. Other
    memory is copied: its writer could cut it short, and a mapping would then end this process.

    Raises:
        ValueError: it does not hold exactly so much.
        OSError: it is no memory at all.
    """
    import numpy as np

    if os.fstat(fd).st_size != size_bytes or size_bytes == 0:
        raise ValueError(f"{os.fstat(fd).st_size} bytes of memory, {size_bytes} announced")
    if _is_sealed(fd):
        return np.frombuffer(mmap.mmap(fd, size_bytes, access=mmap.ACCESS_COPY), np.uint8)
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        copied = np.fromfile(file, np.uint8, size_bytes)
    if copied.size != size_bytes:
        raise ValueError("memory was cut short")
    return copied


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def _is_sealed(fd: int) -> bool:
    if not can_seal():
        return False
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _seals() == _seals()
    except OSError:  # a file of another kind
        return False
