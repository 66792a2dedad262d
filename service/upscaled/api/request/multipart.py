"""Split a multipart/form-data body (RFC 7578), as browsers, HTTP and MIME libraries send it.

The body is here as a whole and its file may be 25 MB of any bytes, so delimiters are found by
searching, never byte by byte. What MIME (RFC 2046, 5.1.1) lets a sender write is accepted: text
before the first and behind the last delimiter, blanks behind one, folded headers. So are bodies
whose lines end in LF alone, as Python's `email` writes them.
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from upscaled.errors import InvalidRequestBody

MAX_PARTS: Final = 100
MAX_PART_HEADERS: Final = 16
MAX_PART_HEAD_BYTES: Final = 8 * 1024
# In one part: lines that begin with the delimiter and go on. It is chosen not to stand in the data.
MAX_FALSE_DELIMITERS: Final = 1000
MAX_PADDING_BYTES: Final = 256
# What is decoded at a time: other threads wait for as long as that takes.
_BASE64_PIECE: Final = 4 * 256 * 1024

# Behind the boundary: the two hyphens of the last delimiter, or blanks and the line's end.
_DELIMITER_END: Final = re.compile(rb"(--)|[ \t]{0,%d}+(\r?\n)" % MAX_PADDING_BYTES)
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(r"\r?\n")
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# The parameters of a header such as Content-Disposition.
_NAME: Final = re.compile(r"[; \t]*([^;=]*)")
_QUOTED: Final = re.compile(r'=[ \t]*"((?:[^"\\]|\\.)*+)"?[^;]*', re.DOTALL)
_UNQUOTED: Final = re.compile(r"=([^;]*)")
_ESCAPED: Final = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form.

    Attributes:
        data: what was sent, with any transfer encoding undone.
        file_name: None where the part names none; it may be empty.
        media_type: in lower case, without parameters; empty where there is none.
        charset: as sent, or empty.
    """

    name: str
    data: bytes
    file_name: str | None = None
    media_type: str = ""
    charset: str = ""


def parse_parts(body: bytes, content_type: str) -> list[Part]:
    """Return the parts in the order sent.

    Raises:
        InvalidRequestBody: no boundary, a broken part, an unnamed one, a missing end, more than
            `MAX_PARTS` parts, or one of more than `MAX_PART_HEADERS` headers or
            `MAX_PART_HEAD_BYTES` of them.
    """
    boundary = parse_value(content_type)[1].get("boundary", "").rstrip(" \t")
    if not boundary:
        raise InvalidRequestBody("Invalid multipart: the boundary is missing")
    parts: list[Part] = []
    for begin, end in _find_parts(body, b"--" + boundary.encode("latin-1")):
        if len(parts) == MAX_PARTS:
            raise _invalid("too many parts")
        parts.append(_parse_part(body, begin, end))
    return parts


def _invalid(detail: str) -> InvalidRequestBody:
    return InvalidRequestBody("Invalid multipart", detail=detail)


def _find_parts(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each part's headers begin and its data ends.

    The line end before a delimiter belongs to it. That of the first delimiter is the form's: where
    it is CRLF, a lone LF before what looks like a delimiter is data.
    """
    end = _DELIMITER_END.match(body, len(delimiter)) if body.startswith(delimiter) else None
    if end is None:
        preamble_end, end = _find_delimiter(body, b"\n" + delimiter, 0)
        if end[1] and body[:preamble_end].strip():
            raise _invalid("text without a part")
    while not end[1]:
        begin = end.end()
        data_end, end = _find_delimiter(body, end[2] + delimiter, begin)
        yield begin, data_end


def _find_delimiter(body: bytes, mark: bytes, position: int) -> tuple[int, re.Match[bytes]]:
    """Find the next `mark` (a line end and the delimiter) and the end of the delimiter's line."""
    for _ in range(MAX_FALSE_DELIMITERS + 1):
        found = body.find(mark, position)
        if found == -1:
            raise InvalidRequestBody("Invalid multipart: the final boundary is missing")
        position = found + len(mark)
        if end := _DELIMITER_END.match(body, position):
            return found, end
    raise _invalid("the boundary stands in the data")


def _parse_part(body: bytes, begin: int, end: int) -> Part:
    # From the delimiter's LF, since the empty line that ends the headers may follow it at once, to
    # the next delimiter's line end, since it may be that empty line.
    window = body[begin - 1 : min(end + 2, begin + MAX_PART_HEAD_BYTES)]
    head_end = _HEAD_END.search(window)
    if head_end is None:
        raise _invalid("a part's headers do not end")
    headers = _parse_headers(window[1 : head_end.start()].decode(errors="replace"))
    parameters = parse_value(headers.get("content-disposition", ""))[1]
    if "name" not in parameters:
        raise _invalid("a part without a name")
    media_type, type_parameters = parse_value(headers.get("content-type", ""))
    data = body[begin - 1 + head_end.end() : end]
    return Part(
        name=parameters["name"],
        data=_undo_transfer_encoding(data, headers.get("content-transfer-encoding", "")),
        file_name=_file_name_in(parameters),
        media_type=media_type,
        charset=type_parameters.get("charset", ""),
    )


def _file_name_in(parameters: dict[str, str]) -> str | None:
    """Return `filename`, or its RFC 2231 form: `filename*`, `filename*0`, `filename*0*`."""
    extended = (parameters[name] for name in parameters if name.startswith("filename*"))
    return parameters.get("filename", next(extended, None))


def _parse_headers(head: str) -> dict[str, str]:
    """Return headers by name in lower case; of a repeated one the last counts."""
    lines = [line for line in _LINE_END.split(_FOLD.sub(" ", head)) if line]
    if len(lines) > MAX_PART_HEADERS:
        raise _invalid("too many headers in a part")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t").lower()
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise _invalid("a broken header in a part")
        headers[name] = value.strip(" \t")
    return headers


def _undo_transfer_encoding(data: bytes, encoding: str) -> bytes:
    """Return the bytes that were encoded for transport.

    RFC 7578 (4.7) advises senders against it, but MIME libraries do so unless stopped. Data in an
    encoding that is not known stay as they are (RFC 2045, 6.4).
    """
    match encoding.lower():
        case "base64":
            return _decode_base64(data)
        case "quoted-printable":
            return binascii.a2b_qp(data)
        case _:
            return data


def _decode_base64(data: bytes) -> bytes:
    """Decode base64 piece by piece, so that other threads need not wait for the whole."""
    letters = data.translate(None, b" \t\r\n")
    pieces = (letters[at : at + _BASE64_PIECE] for at in range(0, len(letters), _BASE64_PIECE))
    try:
        return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
    except binascii.Error:
        raise _invalid("broken base64") from None


def parse_value(header: str) -> tuple[str, dict[str, str]]:
    """Split a header into its value and its parameters, both names in lower case.

    Clients write blanks around `=`, and no quotes where RFC 9110 (5.6.6) and RFC 2183 require them.
    Of a repeated name the last value counts. Every character is scanned once.
    """
    value, _, rest = header.partition(";")
    parameters: dict[str, str] = {}
    position = 0
    while match := _NAME.match(rest, position):
        name, position = match[1].strip(" \t").lower(), match.end()
        if position == len(rest):
            break
        if quoted := _QUOTED.match(rest, position):
            parameters[name], position = _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
        elif unquoted := _UNQUOTED.match(rest, position):
            parameters[name], position = unquoted[1].strip(" \t"), unquoted.end()
    return value.strip(" \t").lower(), parameters
