"""The parts of a multipart/form-data body.

python-multipart finds the parts. It takes a body without its final boundary for a whole one and
knows no `filename*`; both are seen to here.
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import InvalidRequestBody

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS: Final = 100
_FILE_NAME_EXTENDED: Final = re.compile(rb";[ \t]*filename\*(?:0\*?)?[ \t]*=", re.IGNORECASE)
# Codecs a text part may name; Python knows some whose cost is quadratic.
_CHARSETS: Final = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "utf-16"}


@dataclass(frozen=True, slots=True)
class Part:
    """`file_name` is None for a text part, and may be empty for a file."""

    name: str
    data: bytes
    file_name: str | None
    charset: str

    @property
    def text(self) -> str:
        return self.data.decode(self.charset, errors="replace")


def parse_parts(body: bytes, content_type: str) -> list[Part]:
    """The parts in the order sent.

    Raises:
        InvalidRequestBody: no boundary, a broken part, an unnamed one, a missing end or more than
            `MAX_PARTS`.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise InvalidRequestBody("Invalid multipart: the boundary is missing")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks(), max_header_count=16)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequestBody("Invalid multipart", detail=str(error)) from None
    if not collector.is_ended:
        raise InvalidRequestBody("Invalid multipart: the final boundary is missing")
    return collector.parts


@dataclass(slots=True)
class _Collector:
    """Gathers what the parser calls back with."""

    parts: list[Part] = field(default_factory=list)
    is_ended: bool = False
    _data: list[bytes] = field(default_factory=list)
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _header_name: bytes = b""
    _header_value: bytes = b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._extend_header_name,
            "on_header_value": self._extend_header_value,
            "on_header_end": self._end_header,
            "on_part_data": self._extend_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise FormParserError("too many parts")
        self._data, self._headers = [], {}

    def _extend_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _extend_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _extend_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end_part(self) -> None:
        self.parts.append(_build_part(self._headers, b"".join(self._data)))

    def _end(self) -> None:
        self.is_ended = True


def _build_part(headers: dict[bytes, bytes], data: bytes) -> Part:
    disposition = headers.get(b"content-disposition", b"")
    options = parse_options_header(disposition)[1]
    if b"name" not in options:
        raise FormParserError("a part without a name")
    file_name = options.get(b"filename")
    if file_name is None and _FILE_NAME_EXTENDED.search(disposition):
        file_name = b"*"
    media_type, parameters = parse_options_header(headers.get(b"content-type", b""))
    if file_name is None and media_type and not media_type.startswith(b"text/"):
        file_name = b"*"
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1").lower()
    return Part(
        name=options[b"name"].decode(errors="replace"),
        data=data,
        file_name=None if file_name is None else file_name.decode(errors="replace"),
        charset=charset if charset in _CHARSETS else "utf-8",
    )
