"""Parse the head of an HTTP/1 response without I/O, bounded, and as tolerant as curl.

Image hosts send heads that strict parsers refuse (over 8 KB, over 128 lines, `Name : value`,
folded lines, bare line feeds) and that every browser reads. Each connection carries one response,
so tolerance opens no way for request smuggling. Only the fields that fetching needs are kept.
"""

import re
from dataclasses import dataclass
from typing import Final

from upscaled.fetch.url import UnusableUrl

# All heads of one answer together, interim ones (1xx) included: curl's limit,
# MAX_HTTP_RESP_HEADER_SIZE of lib/http.h.
MAX_HEAD_BYTES: Final = 300 * 1024
MAX_INTERIM_HEADS: Final = 100
# Lines of one head: curl's limit too (MAX_HTTP_RESP_HEADER_COUNT, since 8.11).
MAX_HEAD_LINES: Final = 5000

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/(?:1\.[01]|2|3)[ \t]+([0-9]{3})(?![0-9])")
_STATUS_LINE_START: Final = b"HTTP/"
_FIELD: Final = re.compile(
    rb"^(content-encoding|content-length|location|set-cookie|transfer-encoding)[ \t]*:"
    rb"([^\n]*(?:\n[ \t][^\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")  # obs-fold, RFC 9112, section 5.2
_SWITCHING_PROTOCOLS: Final = 101


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and header fields; `fields` has the values of each line by lower-case name."""

    status: int
    fields: dict[str, list[bytes]]

    def last(self, name: str) -> bytes | None:
        """Return the value of the last line of that name, which curl uses."""
        values = self.fields.get(name)
        return values[-1] if values else None

    def members(self, name: str) -> list[str]:
        """Return the members of a comma-separated field in lower case, of all its lines."""
        lines = ",".join(value.decode("latin-1") for value in self.fields.get(name, []))
        return [part.strip().lower() for part in lines.split(",") if part.strip()]


class HeadParser:
    """Parser of a response's head; `rest` holds the bytes behind it once it is complete."""

    def __init__(self) -> None:
        self.rest = b""
        self._buffer = bytearray()
        self._searched_bytes = 0
        self._consumed_bytes = 0
        self._interim_heads = 0

    def feed(self, data: bytes) -> ResponseHead | None:
        """Return the final head, or None until it is complete; interim heads (1xx) are skipped.

        No HTTP/1, too many bytes, lines or interim heads raise `UnusableUrl`.
        """
        self._buffer += data
        while (end := self._find_end()) is not None:
            head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[:end]
            self._consumed_bytes += end
            if not 100 <= head.status < 200 or head.status == _SWITCHING_PROTOCOLS:
                self.rest = bytes(self._buffer)
                return head
            self._interim_heads += 1
            if self._interim_heads > MAX_INTERIM_HEADS:
                raise UnusableUrl(detail=f"more than {MAX_INTERIM_HEADS} interim answers")
        return None

    def _find_end(self) -> int | None:
        found = _HEAD_END.search(self._buffer, max(0, self._searched_bytes - 2))
        self._searched_bytes = 0 if found else len(self._buffer)
        head_bytes = self._consumed_bytes + (found.end() if found else len(self._buffer))
        if head_bytes > MAX_HEAD_BYTES:
            raise UnusableUrl(detail=f"a head of more than {MAX_HEAD_BYTES} bytes")
        if not _STATUS_LINE_START.startswith(self._buffer[: len(_STATUS_LINE_START)]):
            raise UnusableUrl(detail="the answer is no HTTP/1")
        return found.end() if found else None


def parse_head(head: bytes) -> ResponseHead:
    """Parse one complete head, or raise `UnusableUrl`; lines without a colon are ignored."""
    status_line = _STATUS_LINE.match(head)
    if status_line is None or b"\0" in head:
        raise UnusableUrl(detail="the answer is no HTTP/1")
    if head.count(b"\n") > MAX_HEAD_LINES:
        raise UnusableUrl(detail=f"a head of more than {MAX_HEAD_LINES} lines")
    fields: dict[str, list[bytes]] = {}
    for name, value in (match.groups() for match in _FIELD.finditer(head)):
        fields.setdefault(name.decode().lower(), []).append(_FOLD.sub(b" ", value).strip())
    return ResponseHead(int(status_line[1]), fields)
