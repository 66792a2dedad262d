"""Read the head of a request (RFC 9112, sections 2 to 6) line by line, strictly and bounded.

What two programs could read in two ways is refused: request smuggling depends on it.
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_REQUEST_LINE_BYTES: Final = 32 * 1024
MAX_HEADERS: Final = 256
MAX_EMPTY_LINES: Final = 8  # before a request; section 2.2 demands one

Headers = list[tuple[bytes, bytes]]

# Each pattern can match a text in one way only, so matching is linear.
_TOKEN: Final = rb"[A-Za-z0-9!#$%&'*+\-.^_`|~]+"
_REQUEST_LINE: Final = re.compile(
    rb"([A-Za-z0-9!#$%&'*+\-.^_`|~]{1,32}) ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/(1\.[01])"
)
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9\-._~%!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
# RFC 9110, section 8.6, has no largest length; no real length has more digits.
_LENGTH: Final = re.compile(rb"[0-9]{1,40}")
# Forbidden in every line of a message. CR is checked where the line ends.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class MalformedRequest(Exception):
    """The bytes break HTTP/1.1 or one of our limits; the text says how, and quotes none of them."""


class LineReader:
    """Reader that joins the pieces of a line, however they arrive.

    Only new bytes are searched and each is copied once, so n bytes cost O(n) in pieces of any size.
    """

    def __init__(self) -> None:
        self._begun = bytearray()

    @property
    def size_bytes(self) -> int:
        """Return the bytes of a line whose end has not arrived yet."""
        return len(self._begun)

    def feed(
        self, data: bytes | bytearray, start: int, limit_bytes: int
    ) -> tuple[bytes | None, int]:
        """Read bytes of the line from `data[start:]`, with its CRLF at most `limit_bytes`.

        Returns:
            The line without its CRLF, None while its end has not come; and the offset in `data`
            behind the bytes that were read.

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


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Head of a request.

    Attributes:
        target: path and query as sent, "*" for the server as a whole.
        version: "1.0" or "1.1".
        headers: in their order, names in lower case; `Host` is the one that counts.
        body_bytes: the body's length, None where it comes in chunks.
        keeps_alive: whether the client may use the connection again.
        expects_continue: whether it waits for `100 Continue` before it sends the body.
    """

    method: str
    target: bytes
    version: str
    headers: Headers
    body_bytes: int | None
    keeps_alive: bool
    expects_continue: bool


class HeadReader:
    """Reader of one head, whose size, first line and number of fields are bounded."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.head: RequestHead | None = None
        self._line = LineReader()
        self._start: tuple[bytes, bytes, bytes] | None = None
        self._headers: Headers = []
        self._empty_lines = 0

    def feed(self, data: bytes | bytearray, start: int = 0) -> int:
        """Read the head from `data[start:]`, set `head` at its end, return the offset behind it.

        Raises:
            MalformedRequest: no HTTP/1.1 or HTTP/1.0, ambiguous, or beyond a limit.
        """
        while self.head is None and start < len(data):
            begun_bytes = self._line.size_bytes
            limit_bytes = MAX_HEAD_BYTES - self.size_bytes + begun_bytes
            if self._start is None:
                limit_bytes = min(limit_bytes, MAX_REQUEST_LINE_BYTES)
            line, stop = self._line.feed(data, start, limit_bytes)
            self.size_bytes += stop - start
            start = stop
            if line is not None:
                self._take_line(line)
        return start

    def _take_line(self, line: bytes) -> None:
        if self._start is None:
            if line:
                self._start = _parse_request_line(line)
                return
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                raise MalformedRequest("empty lines in place of a request")
        elif line:
            if len(self._headers) == MAX_HEADERS:
                raise MalformedRequest("too many header fields")
            self._headers.append(parse_field(line))
        else:
            self.head = _complete(*self._start, self._headers)


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Return the name, in lower case, and the value of a header or trailer field.

    Raises:
        MalformedRequest: no field, white space before the colon, or a folded line.
    """
    match = _FIELD.fullmatch(line)
    if match is None:
        raise MalformedRequest("a line that is no header field")
    return match[1].lower(), match[2].strip(b" \t")


def _parse_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise MalformedRequest("no request line of HTTP/1.1 or HTTP/1.0")
    return match[1], match[2], match[3]


def _complete(method: bytes, target: bytes, version: bytes, headers: Headers) -> RequestHead:
    if method == b"CONNECT":
        raise MalformedRequest("this server is not a proxy")
    target, headers = _choose_host(target, headers, version)
    return RequestHead(
        method=method.decode(),
        target=target,
        version=version.decode(),
        headers=headers,
        body_bytes=_measure_body(headers, version),
        keeps_alive=version == b"1.1" and b"close" not in _tokens(headers, b"connection"),
        expects_continue=version == b"1.1" and b"100-continue" in _tokens(headers, b"expect"),
    )


def _choose_host(target: bytes, headers: Headers, version: bytes) -> tuple[bytes, Headers]:
    """Return target and headers with the one `Host` that counts (section 3.2).

    A request has exactly one, or in HTTP/1.0 none; the host of an absolute target replaces it.
    """
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and version != b"1.0"):
        raise MalformedRequest("Host was sent twice" if hosts else "Host is missing")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        hosts, rest = [absolute[1]], absolute[2]
        target = rest if rest.startswith(b"/") else b"/" + rest
        headers = [(b"host", absolute[1]), *(each for each in headers if each[0] != b"host")]
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise MalformedRequest("Host is not a host name or address")
    if not target.startswith(b"/") and target != b"*":
        raise MalformedRequest("the target is neither a path nor a URL")
    return target, headers


def _measure_body(headers: Headers, version: bytes) -> int | None:
    """Return the body's length, None for chunks (section 6.3); what is ambiguous is refused."""
    lengths = _values(headers, b"content-length")
    codings = _values(headers, b"transfer-encoding")
    if codings:
        if version == b"1.0" or lengths:
            raise MalformedRequest("Transfer-Encoding with Content-Length, or in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise MalformedRequest("a transfer coding other than chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise MalformedRequest("Content-Length is no single number")
    return int(lengths[0])


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for each, value in headers if each == name]


def _tokens(headers: Headers, name: bytes) -> list[bytes]:
    joined = b",".join(_values(headers, name))
    return [token.strip(b" \t") for token in joined.lower().split(b",")]
