"""Find the end of a response's body (RFC 9112, section 6), without I/O and as curl does.

Each framing gets raw bytes by `feed` and yields body bytes lazily: a caller that stops between
two pieces has done no further work. `finish` is for the connection's end.
"""

import re
from collections.abc import Iterator
from typing import Final

from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.head import ResponseHead
from upscaled.fetch.url import UnusableUrl

CHUNKED: Final = "chunked"

# Limits the size lines, extensions, line ends and trailers of a chunked body. Sound bodies have 8
# bytes of them for thousands of the body; one of chunks of 1 byte passes up to 13,000 chunks.
FREE_FRAMING_BYTES: Final = 64 * 1024
BODY_BYTES_PER_FRAMING_BYTE: Final = 8

# At most 16 digits, leading zeros included; behind a blank or a semicolon anything may follow.
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t;\r\n]")
_LENGTH: Final = re.compile(rb"\+?([0-9]+)")
_MAX_LENGTH_DIGITS: Final = 18


def choose_framing(head: ResponseHead, limit_bytes: int) -> "PlainBody | ChunkedBody":
    """Decide as curl does: a transfer coding wins over a length, the last length over others.

    Raises:
        UnusableUrl: a length that is no number.
        FileSizeTooLarge: a length over `limit_bytes`.
    """
    transfer = head.members("transfer-encoding")
    if CHUNKED in transfer:
        return ChunkedBody(limit_bytes)
    length = head.last("content-length")
    if transfer or length is None:
        return PlainBody(None)
    number = _LENGTH.match(length)
    if number is None:
        raise UnusableUrl(detail="Content-Length is no number")
    digits = number[1].lstrip(b"0") or b"0"
    if len(digits) > _MAX_LENGTH_DIGITS or int(digits) > limit_bytes:
        raise FileSizeTooLarge(detail=f"declared {digits[:_MAX_LENGTH_DIGITS].decode()} bytes")
    return PlainBody(int(digits))


def max_framed_bytes(body_bytes: int) -> int:
    """Return the most bytes that a body of that size may have with its framing."""
    return body_bytes + FREE_FRAMING_BYTES + body_bytes // BODY_BYTES_PER_FRAMING_BYTE


class PlainBody:
    """Body of `length_bytes`, as Content-Length declares; None: until the connection ends."""

    def __init__(self, length_bytes: int | None) -> None:
        self._missing_bytes = length_bytes

    @property
    def is_complete(self) -> bool:
        """Return whether the body has ended, so that nothing further need be read."""
        return self._missing_bytes == 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the body's bytes among the next raw bytes; ignore what follows the body."""
        piece = data[: self._missing_bytes]
        if self._missing_bytes is not None:
            self._missing_bytes -= len(piece)
        if piece:
            yield piece

    def finish(self) -> None:
        """End with the connection; raises `UnusableUrl` where the body has not ended."""
        if self._missing_bytes:
            raise UnusableUrl(detail=f"the body ended {self._missing_bytes} bytes early")


class ChunkedBody:
    """Chunked body (RFC 9112, section 7.1), as `PlainBody`; bare line feeds will do, as in curl.

    All framing bytes are counted before they are parsed, and each is scanned once.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.is_complete = False
        self._limit_bytes = limit_bytes
        self._line = bytearray()  # a size or trailer line of which the end has not come
        self._missing_bytes = 0  # of the chunk
        self._is_between = False  # behind a chunk's data, before its line end
        self._is_in_trailer = False
        self._body_bytes = 0
        self._framing_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data) and not self.is_complete:
            if self._missing_bytes:
                piece = data[at : at + self._missing_bytes]
                at += len(piece)
                self._missing_bytes -= len(piece)
                self._body_bytes += len(piece)
                self._is_between = not self._missing_bytes
                yield piece
                continue
            end = data.find(b"\n", at) + 1
            self._count(data[at : end or len(data)])
            at = end or len(data)
            if end:
                self._read_line(bytes(self._line))
                self._line.clear()
                if self._is_in_trailer:
                    yield b""  # a step of work, for a caller that counts them

    def finish(self) -> None:
        if not self.is_complete:
            raise UnusableUrl(detail="the chunked body has no end")

    def _count(self, part: bytes) -> None:
        self._framing_bytes += len(part)
        if self._body_bytes + self._framing_bytes > max_framed_bytes(self._body_bytes):
            raise UnusableUrl(detail="more chunk framing than body")
        self._line += part

    def _read_line(self, line: bytes) -> None:
        if self._is_between:
            if line not in (b"\r\n", b"\n"):
                raise UnusableUrl(detail="a chunk is longer than its size")
            self._is_between = False
        elif self._is_in_trailer:
            self.is_complete = line in (b"\r\n", b"\n")
        else:
            self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        size = _CHUNK_SIZE.match(line)
        if size is None:
            raise UnusableUrl(detail="a chunk without a size")
        self._missing_bytes = int(size[1], 16)
        self._is_in_trailer = not self._missing_bytes
        if self._body_bytes + self._missing_bytes > self._limit_bytes:
            raise FileSizeTooLarge(detail=f"a chunk of {self._missing_bytes} bytes")
