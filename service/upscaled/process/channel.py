"""The wire between the front end and a worker: frames over a Unix socket pair.

    4 bytes   length of the header, big endian
    8 bytes   length of the payload, big endian
    header    JSON text (what may stand in it: `messages.py`)
    payload   raw bytes: an encoded image, or nothing

Nothing is pickled, so a worker that an image has taken over cannot make the front end run anything.
`send` and `receive` block and belong to the worker; `asend` and `areceive` belong to the event
loop, which they give back after each chunk.
"""

import asyncio
import socket
import struct
from io import BytesIO
from typing import NamedTuple

MAX_HEADER_BYTES = 64 * 1024
MAX_SOURCE_BYTES = 2**31  # the highest that the setting max_file_bytes may be
MAX_RESULT_BYTES = 2**29  # 6000 x 6000 pixels of 16 bits with alpha are 288 MB uncompressed
CHUNK_BYTES = 256 * 1024

_LENGTHS = struct.Struct("!IQ")


class FrameError(Exception):
    """The bytes on the wire are no frame, or one over the limits."""


class Frame(NamedTuple):
    header: bytes
    payload: bytes


def send(sock: socket.socket, header: bytes, payload: bytes = b"") -> None:
    """Write one frame, a result at most, to a blocking socket.

    Raises:
        FrameError: header or payload over its limit; nothing has been written.
        OSError: the other side is gone.
    """
    sock.sendall(_begin(header, payload, MAX_RESULT_BYTES))
    if payload:
        sock.sendall(payload)


def receive(sock: socket.socket) -> Frame:
    """Read one frame, a source at most, from a blocking socket.

    Raises:
        EOFError: the other side closed, between frames or within one.
        FrameError: lengths over the limits.
        OSError: the connection broke.
    """
    header_bytes, payload_bytes = _unpack(_read(sock, _LENGTHS.size), MAX_SOURCE_BYTES)
    return Frame(_read(sock, header_bytes), _read(sock, payload_bytes))


async def asend(sock: socket.socket, header: bytes, payload: bytes = b"") -> None:
    """`send` of a source; non-blocking socket. Cancelled half-way it leaves a torn frame behind."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _begin(header, payload, MAX_SOURCE_BYTES))
    rest = memoryview(payload)
    while rest:
        await loop.sock_sendall(sock, rest[:CHUNK_BYTES])
        rest = rest[CHUNK_BYTES:]
        await asyncio.sleep(0)


async def areceive(sock: socket.socket) -> Frame:
    """`receive` of a result; non-blocking socket. Cancelled half-way it loses its place."""
    header_bytes, payload_bytes = _unpack(await _aread(sock, _LENGTHS.size), MAX_RESULT_BYTES)
    return Frame(await _aread(sock, header_bytes), await _aread(sock, payload_bytes))


def _begin(header: bytes, payload: bytes, max_payload_bytes: int) -> bytes:
    _check(len(header), len(payload), max_payload_bytes)
    return _LENGTHS.pack(len(header), len(payload)) + header


def _unpack(lengths: bytes, max_payload_bytes: int) -> tuple[int, int]:
    header_bytes, payload_bytes = _LENGTHS.unpack(lengths)
    _check(header_bytes, payload_bytes, max_payload_bytes)
    return header_bytes, payload_bytes


def _check(header_bytes: int, payload_bytes: int, max_payload_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES:
        raise FrameError(f"header of {header_bytes} bytes, at most {MAX_HEADER_BYTES}")
    if payload_bytes > max_payload_bytes:
        raise FrameError(f"payload of {payload_bytes} bytes, at most {max_payload_bytes}")


def _read(sock: socket.socket, size_bytes: int) -> bytes:
    read = BytesIO()
    while read.tell() < size_bytes:
        chunk = sock.recv(min(size_bytes - read.tell(), CHUNK_BYTES))
        if not chunk:
            raise EOFError
        read.write(chunk)
    return read.getvalue()


async def _aread(sock: socket.socket, size_bytes: int) -> bytes:
    # BytesIO grows in place and hands its buffer over, so a result of 100 MB is never copied in
    # one go: that would hold up the event loop for tens of milliseconds.
    loop = asyncio.get_running_loop()
    read = BytesIO()
    while read.tell() < size_bytes:
        chunk = await loop.sock_recv(sock, min(size_bytes - read.tell(), CHUNK_BYTES))
        if not chunk:
            raise EOFError
        read.write(chunk)
        # sock_recv returns at once while bytes are there: a fast worker would own the loop.
        await asyncio.sleep(0)
    return read.getvalue()
