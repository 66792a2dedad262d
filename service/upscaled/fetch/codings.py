"""Decompress bodies with content codings (RFC 9110, section 8.4.1) in steps under a byte limit.

Requests want `identity`, but object stores send what was uploaded, label and all. A label that the
bytes contradict, or that names no compression (`UTF-8`, `aws-chunked`), changes nothing.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.framing import CHUNKED
from upscaled.fetch.head import ResponseHead
from upscaled.fetch.url import UnusableUrl
from upscaled.image.formats.table import sniff

MAX_CODINGS: Final = 5  # curl's limit, MAX_ENCODE_STACK of lib/content_encoding.c
STEP_BYTES: Final = 16 * 1024  # unpacked at once
SNIFF_BYTES: Final = 32

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_COMPRESSED: Final = _GZIP | {"deflate"}
_GZIP_MAGIC: Final = b"\x1f\x8b"
# `wbits`, see zlib.decompressobj, and one for data that has ended.
_GZIP_WINDOW, _ZLIB_WINDOW, _RAW_WINDOW, _NOTHING_MORE = 31, 15, -15, 0


def choose_stages(head: ResponseHead, limit_bytes: int) -> list["Unpacking"]:
    """Return the stages of a response's body, in order; each yields `limit_bytes` at most.

    Too many codings, or an unknown transfer coding, raise `UnusableUrl`.
    """
    transfer = [name for name in head.members("transfer-encoding") if name != CHUNKED]
    unknown = set(transfer) - _COMPRESSED - {"identity"}
    if unknown:
        raise UnusableUrl(detail="an unknown transfer coding")
    codings = [name for name in head.members("content-encoding") + transfer if name in _COMPRESSED]
    if len(codings) > MAX_CODINGS:
        raise UnusableUrl(detail=f"more than {MAX_CODINGS} content codings")
    return [Unpacking(name, limit_bytes) for name in reversed(codings)]


def unpack(stages: Sequence["Unpacking"], data: bytes) -> Iterator[bytes]:
    """Yield what `data` becomes behind all stages, lazily."""
    if not stages:
        yield data
        return
    for piece in stages[0].feed(data):
        yield from unpack(stages[1:], piece)


def finish(stages: Sequence["Unpacking"]) -> Iterator[bytes]:
    """Yield what the stages held back, at the body's end.

    Raises:
        UnusableUrl: the compressed data has no end.
    """
    for number, stage in enumerate(stages, 1):
        for piece in stage.finish():
            yield from unpack(stages[number:], piece)


class Unpacking:
    """Decompression of one gzip or deflate coding.

    The first bytes decide, not the label: gzip and zlib by their marks, else raw deflate, unless
    they are an image.
    """

    def __init__(self, coding: str, limit_bytes: int) -> None:
        self._coding = coding
        self._limit_bytes = limit_bytes
        self._given_bytes = 0
        self._first: bytes | None = b""  # None once decided
        self._window: int | None = None  # None: the bytes go on as they are
        self._inflater = zlib.decompressobj()
        self._behind = b""  # half of the mark that another gzip member begins with

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` unpacks to, in pieces of at most `STEP_BYTES`, some of them empty."""
        if self._first is not None:
            data = self._first + data
            self._first = data
            if len(data) < SNIFF_BYTES:
                yield b""
                return
            self._decide(data)
        if self._window is None:
            yield self._count(data)
        elif self._window != _NOTHING_MORE:
            yield from self._inflate(data)

    def finish(self) -> Iterator[bytes]:
        """Yield what was held back until the body's end; raises as the function `finish`."""
        if self._first is not None:
            first = self._first
            self._decide(first)
            yield from self.feed(first)
        if self._window is not None and not self._inflater.eof:
            raise UnusableUrl(detail=f"the {self._coding} data has no end")

    def _decide(self, first: bytes) -> None:
        """Choose the decompressor by the first bytes; none for an image that is not compressed."""
        self._first = None
        if first.startswith(_GZIP_MAGIC):
            self._window = _GZIP_WINDOW
        elif _has_zlib_header(first):
            self._window = _ZLIB_WINDOW
        elif first and self._coding not in _GZIP and sniff(first) is None:
            self._window = _RAW_WINDOW
        if self._window is not None:
            self._inflater = zlib.decompressobj(self._window)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._inflater.eof:
                data = self._begin_member(data)
                if not data:
                    return
            try:
                piece = self._inflater.decompress(data, STEP_BYTES)
            except zlib.error:
                raise UnusableUrl(detail=f"broken {self._coding} data") from None
            yield self._count(piece)
            data = self._inflater.unused_data or self._inflater.unconsumed_tail
            if not data and len(piece) < STEP_BYTES:  # a full piece may leave output behind
                return

    def _begin_member(self, data: bytes) -> bytes:
        """Return the data of the next gzip member (RFC 1952, section 2.2), or nothing at the end.

        What follows the end and is no member is ignored.
        """
        data, self._behind = self._behind + data, b""
        if self._window != _GZIP_WINDOW or not _GZIP_MAGIC.startswith(data[:2]):
            self._window = _NOTHING_MORE
            return b""
        if len(data) < len(_GZIP_MAGIC):
            self._behind = data
            return b""
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)
        return data

    def _count(self, piece: bytes) -> bytes:
        self._given_bytes += len(piece)
        if self._given_bytes > self._limit_bytes:
            raise FileSizeTooLarge(detail=f"unpacked {self._given_bytes} bytes")
        return piece


def _has_zlib_header(first: bytes) -> bool:
    """Check for method 8 and two bytes that 31 divides (RFC 1950, section 2.2)."""
    return len(first) >= 2 and first[0] & 0x0F == 8 and int.from_bytes(first[:2], "big") % 31 == 0
