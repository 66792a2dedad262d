"""Read a request's body to its end, by length or in chunks (RFC 9112, sections 6 and 7)."""

import re
from typing import Final

from upscaled.api.protocol.head import LineReader, MalformedRequest, RequestHead, parse_field

MIN_BODY_BYTES_PER_S: Final = 256
MAX_CHUNK_LINE_BYTES: Final = 4 * 1024
MAX_TRAILER_BYTES: Final = 16 * 1024
# Size lines, extensions, line ends and trailers, beyond a sixteenth of the body's own bytes: 10,000
# chunks of one byte pass, and a body of any length in chunks of about 100 bytes. Every chunk costs
# time, however small it is.
MAX_FRAMING_BYTES: Final = 64 * 1024
FRAMING_SHARE: Final = 16
# One feed reads no more, so that other connections' bytes come between: some 0.2 ms.
MAX_LINES_PER_FEED: Final = 128

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


def read_body_of(head: RequestHead) -> "BodyReader":
    return ChunkedReader() if head.body_bytes is None else LengthReader(head.body_bytes)


class BodyProgress:
    """Measure of a body's progress: less than `MIN_BODY_BYTES_PER_S` on average counts as none."""

    def __init__(self, now_s: float) -> None:
        self.restart(now_s)

    def restart(self, now_s: float) -> None:
        """Measure from now on; `now_s` is of `time.monotonic`."""
        self._size_bytes, self._begun_s = 0, now_s

    def add(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes

    def is_stalled(self, now_s: float, limit_s: float) -> bool:
        if self._size_bytes >= MIN_BODY_BYTES_PER_S * limit_s:
            self.restart(now_s)
        return now_s - self._begun_s > limit_s


class LengthReader:
    """Reader of a body of `Content-Length` bytes."""

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes
        self.is_complete = size_bytes == 0

    def feed(self, data: bytes | bytearray, start: int, body: bytearray) -> int:
        """Move the body's bytes from `data[start:]` to `body`, and return the offset behind them.

        It may stop before the end of `data`, and must then be called again.

        Raises:
            MalformedRequest: the framing is broken or beyond a limit.
        """
        stop = min(len(data), start + self._left_bytes)
        with memoryview(data) as whole, whole[start:stop] as part:
            body += part
        self._left_bytes -= stop - start
        self.is_complete = self._left_bytes == 0
        return stop


class ChunkedReader:
    """Reader of a chunked body, as `LengthReader`; checks and drops extensions and trailers."""

    def __init__(self) -> None:
        self.is_complete = False
        self._line = LineReader()
        self._left_bytes = 0  # of the chunk at hand
        self._awaits = "size"  # or "data", "end" (the CRLF behind the data), "trailer"
        self._body_bytes = 0
        self._framing_bytes = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes | bytearray, start: int, body: bytearray) -> int:
        lines = 0
        while start < len(data) and not self.is_complete and lines < MAX_LINES_PER_FEED:
            if self._awaits == "data":
                start = self._read_data(data, start, body)
                continue
            if stop := self._read_whole_chunk(data, start, body):
                start = stop
                lines += 1
                continue
            limit_bytes = 2 if self._awaits == "end" else MAX_CHUNK_LINE_BYTES
            line, start = self._line.feed(data, start, limit_bytes)
            if line is not None:
                self._count_framing(len(line) + 2)
                self._read_line(line)
                lines += 1
        return start

    def _read_whole_chunk(self, data: bytes | bytearray, start: int, body: bytearray) -> int:
        """Read a chunk that is in `data` as a whole, as nearly all are; return 0 where none is."""
        if self._awaits != "size" or self._line.size_bytes:
            return 0
        match = _PLAIN_SIZE_LINE.match(data, start)
        if match is None or not (size_bytes := int(match[1], 16)):
            return 0
        end = match.end() + size_bytes
        if data[end : end + 2] != b"\r\n":
            return 0
        body += data[match.end() : end]
        self._body_bytes += size_bytes
        self._count_framing(match.end() - start + 2)
        return end + 2

    def _read_data(self, data: bytes | bytearray, start: int, body: bytearray) -> int:
        stop = min(len(data), start + self._left_bytes)
        with memoryview(data) as whole, whole[start:stop] as part:
            body += part
        self._body_bytes += stop - start
        self._left_bytes -= stop - start
        if self._left_bytes == 0:
            self._awaits = "end"
        return stop

    def _read_line(self, line: bytes) -> None:
        if self._awaits == "size":
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise MalformedRequest("a chunk without a size")
            self._left_bytes = int(match[1], 16)
            self._awaits = "data" if self._left_bytes else "trailer"
        elif self._awaits == "end":
            self._awaits = "size"  # the line is empty: its limit allows nothing else
        elif line:
            parse_field(line)
        else:
            self.is_complete = True

    def _count_framing(self, size_bytes: int) -> None:
        self._framing_bytes += size_bytes
        if self._framing_bytes > MAX_FRAMING_BYTES + self._body_bytes // FRAMING_SHARE:
            raise MalformedRequest("chunks with more framing than body")
        if self._awaits == "trailer":
            self._trailer_bytes += size_bytes
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise MalformedRequest("the trailer is too long")


BodyReader = LengthReader | ChunkedReader
