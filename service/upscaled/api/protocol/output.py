"""Write to one connection, and measure how much of it the client has received."""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from contextlib import suppress
from typing import Final

# Every answer begins so, and the size of a chunk may (RFC 9112, section 7.1: 1*HEXDIG). These bytes
# may go out early: they commit to nothing.
ANSWER_AHEAD: Final = b"HTTP/1.1 "
CHUNK_AHEAD: Final = b"0000"
# Less received than this, as an average over the time limit, counts as nothing.
MIN_WRITE_BYTES_PER_S: Final = 256
# A client that has stopped sending is probed by the next check, and the check after that sees the
# outcome: half a second in all. Then it is probed now and then.
PROBE_EVERY_S: Final = 5.0
# Unsent bytes in the kernel, beside those on their way: what a client that reads nothing can hold.
UNSENT_BYTES: Final = 256 * 1024
_KEEP_ALIVE_S: Final = 15
_RESET: Final = struct.pack("ii", 1, 0)


class Output:
    """Transport for uvicorn's request cycle, which counts the bytes that the client receives.

    Closing is safe at any time: what is written to a connection that has ended is dropped.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        self._written_bytes = 0
        self._ahead_bytes = 0  # of `ANSWER_AHEAD` or `CHUNK_AHEAD`, already sent
        self._is_answer_ahead = False
        self._received_bytes = 0
        self._progress_at_s = time.monotonic()
        self._next_probe_s = 0.0
        self._corked: bytearray | None = None
        _set_options(self._socket)

    def write(self, data: bytes) -> None:
        """Send bytes, without those that `is_lost` has sent ahead."""
        if self._transport.is_closing():
            return
        if self._is_answer_ahead:
            data = data[self._ahead_bytes :]
        self._ahead_bytes, self._is_answer_ahead = 0, False
        self._written_bytes += len(data)
        if self._corked is not None:
            self._corked += data
        else:
            self._transport.write(memoryview(data))  # of which the transport copies no part twice

    def cork(self) -> None:
        """Collect what is written, to send it in one write at `uncork`."""
        self._corked = bytearray()

    def uncork(self) -> None:
        """Send what was collected since `cork`."""
        if self._corked is None:
            return
        collected, self._corked = bytes(self._corked), None
        if collected and not self._transport.is_closing():
            self._transport.write(collected)

    def close(self) -> None:
        """Close the connection once everything written has been sent."""
        self.uncork()
        if not self._transport.is_closing():
            self._transport.close()

    def unsent_bytes(self) -> int:
        """Return the bytes in the transport that the kernel has not accepted yet."""
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def abort(self) -> None:
        """Reset the connection now, and drop what the kernel still holds for it."""
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def end_writing(self) -> None:
        """Shut the sending side once everything written has been sent."""
        self.uncork()
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def is_stalled(self, now_s: float, timeout_s: float) -> bool:
        """Return whether the client has received next to nothing for `timeout_s`.

        What counts are acknowledged bytes, so a slow reader behind large kernel buffers is seen to
        make progress long before the transport's own buffer shrinks.
        """
        waiting_bytes = self._transport.get_write_buffer_size() + _unacknowledged(self._socket)
        received_bytes = self._written_bytes - waiting_bytes
        least_bytes = MIN_WRITE_BYTES_PER_S * timeout_s
        if waiting_bytes <= 0 or received_bytes - self._received_bytes >= least_bytes:
            self._received_bytes, self._progress_at_s = received_bytes, now_s
        return now_s - self._progress_at_s > timeout_s

    def expect_silence(self, now_s: float) -> None:
        """Note that nothing more is read, so that only `is_lost` can notice a disconnect."""
        self._next_probe_s = now_s

    def is_lost(self, now_s: float, ahead: bytes) -> bool:
        """Return whether a client that is not read from has disconnected.

        A client that closes its socket and one that only shuts its sending side look alike (both
        send FIN) until something is sent to them: then the first one's system answers with a reset.
        So bytes of what comes next, the same whatever it will be, are sent ahead, one by one.

        Args:
            ahead: `ANSWER_AHEAD` before an answer, `CHUNK_AHEAD` between two of its chunks, empty
                where nothing may be sent.
        """
        if self._socket is None or self._transport.is_closing():
            return False
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        if now_s >= self._next_probe_s and self._ahead_bytes < len(ahead):
            self._next_probe_s = now_s + PROBE_EVERY_S
            self._transport.write(ahead[self._ahead_bytes : self._ahead_bytes + 1])
            self._ahead_bytes += 1
            self._is_answer_ahead = ahead == ANSWER_AHEAD
            self._written_bytes += 1
        return False


def _set_options(connection: socket.socket | None) -> None:
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_NOTSENT_LOWAT", UNSENT_BYTES),
        ("TCP_KEEPIDLE", _KEEP_ALIVE_S),
        ("TCP_KEEPINTVL", _KEEP_ALIVE_S),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    with suppress(OSError):  # the client has gone already
        for level, option, value in options:
            connection.setsockopt(level, option, value)


def _unacknowledged(connection: socket.socket | None) -> int:
    """Return the bytes in the kernel that the client has not acknowledged; 0 where unknown."""
    if connection is None or (descriptor := connection.fileno()) < 0:
        return 0
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
