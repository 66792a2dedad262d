"""What a worker and a decoder process say to one another, over a Unix socket pair.

    worker                               decoder
    8 bytes: length, big endian      ->
    the encoded file                 ->
                                     <-  8 bytes: length, with a descriptor where there are pixels
                                     <-  JSON: `{"refused": ...}` or the image's facts

Nothing is pickled, and nothing a decoder says is believed before it has been checked: a file may
have taken it over.
"""

import json
import os
import socket
import struct
from typing import Any

from upscaled.process.watchdog import Watch

MAX_SOURCE_BYTES = 2**31
MAX_FACTS_BYTES = 1024 * 1024
CHUNK_BYTES = 1024 * 1024

_LENGTH = struct.Struct("!Q")

Facts = dict[str, Any]


class WireError(Exception):
    """The other side broke the protocol."""


def send_source(sock: socket.socket, source: bytes, watch: Watch) -> None:
    """Send a file, on a socket that does not block.

    Raises:
        TimeoutError, ProcessHangs: as `watch` finds.
        OSError: the process is gone.
    """
    for part in (_LENGTH.pack(len(source)), source):
        view = memoryview(part)
        while view:
            watch.wait_writable(sock)
            view = view[sock.send(view[:CHUNK_BYTES]) :]


def receive_source(sock: socket.socket) -> bytes | None:
    """The next file, from a blocking socket; None once the worker is gone.

    Raises:
        EOFError: it went in the middle of a file.
        WireError: longer than any file.
    """
    first = sock.recv(1)
    if not first:
        return None
    (size_bytes,) = _LENGTH.unpack(first + _receive(sock, _LENGTH.size - 1))
    if size_bytes > MAX_SOURCE_BYTES:
        raise WireError(f"a file of {size_bytes} bytes")
    return bytes(_receive(sock, size_bytes))


def send_reply(sock: socket.socket, facts: Facts, fd: int | None = None) -> None:
    """Facts, and the descriptor of the memory they speak of; `fd` stays open here."""
    text = json.dumps(facts).encode()
    length = _LENGTH.pack(len(text))
    if fd is None:
        sock.sendall(length)
    else:
        socket.send_fds(sock, [length], [fd])  # so few bytes go in one piece
    sock.sendall(text)


def receive_reply(sock: socket.socket, watch: Watch) -> tuple[Facts, int | None]:
    """The facts and, if one came, the descriptor, which is the caller's to close.

    Raises:
        EOFError: the process ended.
        WireError: it spoke nonsense.
        TimeoutError, ProcessHangs: as `watch` finds.
        OSError
    """
    watch.wait_readable(sock)
    first, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 1)
    try:
        for fd in fds:
            os.set_inheritable(fd, False)
        if not first:
            raise EOFError
        rest = _receive(sock, _LENGTH.size - len(first), watch)
        (text_bytes,) = _LENGTH.unpack(first + rest)
        if text_bytes > MAX_FACTS_BYTES:
            raise WireError(f"facts of {text_bytes} bytes")
        facts = _parse(bytes(_receive(sock, text_bytes, watch)))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return facts, fds[0] if fds else None


def _parse(text: bytes) -> Facts:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("facts are no JSON") from error
    if not isinstance(facts, dict):
        raise WireError("facts are no object")
    return facts


def _receive(sock: socket.socket, size_bytes: int, watch: Watch | None = None) -> bytearray:
    received = bytearray(size_bytes)
    view = memoryview(received)
    while view:
        if watch is not None:
            watch.wait_readable(sock)
        count = sock.recv_into(view[:CHUNK_BYTES])
        if count == 0:
            raise EOFError
        view = view[count:]
    return received
