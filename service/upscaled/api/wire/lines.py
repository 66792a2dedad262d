"""Lines of an HTTP message (RFC 9112, section 2.2): ended by CRLF, bounded, each byte seen once."""

import re
from typing import Final

# What no line of a message may hold. CR is judged where the line ends.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class MalformedRequest(Exception):
    """The bytes break HTTP/1.1 or one of our limits; the text says how, and quotes none of them."""


class LineReader:
    """Joins the pieces of a line, however they arrive.

    Only new bytes are searched and each is copied once, so n bytes cost O(n) in pieces of any size.
    """

    def __init__(self) -> None:
        self._begun = bytearray()

    @property
    def size_bytes(self) -> int:
        """Bytes of the line that has begun and not ended."""
        return len(self._begun)

    def take(
        self, data: bytes | bytearray, start: int, limit_bytes: int
    ) -> tuple[bytes | None, int]:
        """Take bytes of the line from `data[start:]`.

        Args:
            limit_bytes: the most that the line may have, its CRLF included.

        Returns:
            The line without its CRLF, None while its end has not come; and the offset in `data`
            behind what was taken.

        Raises:
            MalformedRequest: longer than the limit, ended by LF alone, or with a control character.
        """
        allowed_end = start + limit_bytes - len(self._begun)
        end = data.find(b"\n", start, allowed_end)
        stop = min(len(data), allowed_end) if end < 0 else end + 1
        if _CONTROL.search(data, start, stop):
            raise MalformedRequest("a control character in a line")
        self._begun += data[start:stop]
        if end < 0:
            if len(self._begun) >= limit_bytes:
                raise MalformedRequest("a line is too long")
            return None, stop
        if not self._begun.endswith(b"\r\n"):
            raise MalformedRequest("a line ends in LF without CR")
        line = bytes(self._begun[:-2])
        self._begun.clear()
        if b"\r" in line:
            raise MalformedRequest("CR within a line")
        return line, stop
