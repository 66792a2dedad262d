"""Extract the fields of a request from a JSON object or the parts of a form, before any check.

The name of a form's part decides what it is: `image` is a file, `image_url` and `scale` are text,
whatever type or file name a client library gives them.
"""

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from upscaled.api.request.multipart import Part
from upscaled.errors import InvalidRequestBody

# Longer than any URL that is accepted, in any charset; nothing longer is meant as a text.
MAX_TEXT_BYTES: Final = 64 * 1024

_KNOWN: Final = frozenset({"image", "image_url", "scale"})
_OPTION_PREFIX: Final = "x_upscale_"
# Codecs a text part may name; Python has some whose cost is quadratic.
_CHARSETS: Final = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "utf-16"}
# A byte order mark wins over any name (WHATWG Encoding, 6): Windows' editors write them.
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# A body of brackets and commas grows fifty-fold in memory when parsed; a request has a handful.
MAX_STRUCTURE: Final = 10_000
_STRUCTURE: Final = (b",", b"[", b"{", b":")
# A picture of 25 MB in base64, its slashes and its line ends escaped, has 800,000. Each takes ten
# times as long as another character, and nothing else runs meanwhile.
MAX_ESCAPES: Final = 1_000_000
# In lower case, without what is neither letter nor digit: `imageUrl`, `Image-URL`, `image[]`.
_PICTURES: Final = frozenset(
    """
    image images img imgs picture pictures pic photo photos file files upload uploads media blob
    data content body input inputs inputimage imageinput inputfile imagefile imgfile imagedata
    filedata uploadfile fileupload sourceimage imagesource imagebase64 base64 base64image
    imageurl imageurls imageuri imagelink imagesrc imagepath imgurl imgsrc pictureurl photourl
    fileurl mediaurl url urls uri src source sourceurl srcurl link href inputurl inputimageurl
    downloadurl remoteurl publicurl
    """.split()  # noqa: SIM905 - as a list these would be sixty lines
)
_SCALES: Final = frozenset(
    """
    scale scales scaling factor scalefactor scalingfactor scaleratio ratio zoom zoomfactor
    upscale upscaling upscalefactor upscaleratio upscalelevel outscale outputscale targetscale
    resolution size multiplier magnification enlarge enlargement level
    """.split()  # noqa: SIM905
)
_SHOWABLE: Final = re.compile(r"[A-Za-z0-9 ._\[\]-]{1,32}")
_NO_LETTER: Final = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that the contract does not have; `is_file` if it looks like a picture."""

    name: str
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """The three known fields; None where absent, null or empty. And what chooses an output.

    `options` has the fields whose names begin like a header `X-Upscale-`: `x_upscale_format` ...,
    without those that are null or empty.

    `image` is a str, the text's beginning, where a form holds text instead of a file. `image_url`
    and `scale` are any JSON value, or bytes where a form's part is too long for a text.
    """

    image: bytes | str | None
    image_url: object | None
    scale: object | None
    unknown: tuple[UnknownField, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def name_expected(self) -> str:
        """Return a clause for each missing field that was sent under another name, or "".

        A name is repeated only where it is short and plain, so that no text of a client's choice
        gets into a response.
        """
        clauses: dict[str, str] = {}
        for each in self.unknown:
            if not _SHOWABLE.fullmatch(each.name):
                continue
            plain = _NO_LETTER.sub("", each.name.lower())
            if self.image is None and self.image_url is None and plain in _PICTURES:
                expected = "image" if each.is_file else "image_url"
                clauses.setdefault("picture", f"; instead of {each.name} send {expected}")
            elif self.scale is None and plain in _SCALES:
                clauses.setdefault("scale", f"; instead of {each.name} send scale")
        return "".join(clauses.values())


def fields_of_json(values: dict[str, Any]) -> Fields:
    """Return the fields of a JSON object, in which an `image` (base64, data URI) counts as none."""
    return Fields(
        None,
        _unless_empty(values.get("image_url")),
        _unless_empty(values.get("scale")),
        tuple(UnknownField(name) for name in values if name not in _KNOWN - {"image"}),
        _options_in(values),
    )


def fields_of_parts(parts: list[Part]) -> Fields:
    """Return the fields of a form; of a repeated name the last one counts."""
    last = {part.name: part for part in parts}
    return Fields(
        _image_in(last["image"]) if "image" in last else None,
        _value_in(last["image_url"]) if "image_url" in last else None,
        _value_in(last["scale"]) if "scale" in last else None,
        tuple(
            UnknownField(name, is_file=isinstance(_image_in(part), bytes))
            for name, part in last.items()
            if name not in _KNOWN
        ),
        _options_in({name: _value_in(last[name]) for name in last if _is_option(name)}),
    )


def _is_option(name: str) -> bool:
    return name.startswith(_OPTION_PREFIX)


def _options_in(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: value
        for name, value in values.items()
        if _is_option(name) and value is not None and value != ""
    }


def _image_in(part: Part) -> bytes | str | None:
    """Return the image, or the text sent instead; None for a field that a browser left empty.

    Only a part that is text by all of its marks is one: no file name, no type of a file, and no
    byte that a text does not have. Some clients send a picture without any name or type.
    """
    if not part.data and part.file_name == "":
        return None
    if part.file_name is not None or _is_of_a_file(part):
        return part.data
    text = _read_text(part.data)
    return part.data if text is None else text or None


def _read_text(data: bytes) -> str | None:
    """Return the beginning of a text; None for a picture, whose header has bytes no text has."""
    beginning = data[:MAX_TEXT_BYTES]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(
            beginning
        )  # it may end in a character
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


def _is_of_a_file(part: Part) -> bool:
    """Return whether the part's media type is one that only files have."""
    is_of_a_text = part.media_type.startswith("text/") or _is_json(part)
    return part.media_type not in ("", "multipart/form-data") and not is_of_a_text


def _value_in(part: Part) -> object | None:
    """Return the value of a part, whatever its media type.

    One line end at the end does not count: a value that is sent as a file has one. A part of a
    JSON type holds JSON, or else the text as it stands; a text in JSON's quotes loses them.
    """
    if len(part.data) > MAX_TEXT_BYTES:
        return part.data
    text = _decode(part)
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if _is_json(part) or (text.startswith('"') and text.endswith('"')):
        try:
            return _unless_empty(parse_json_text(text))
        except ValueError:
            pass
    return text or None


def _is_json(part: Part) -> bool:
    return part.media_type.endswith(("/json", "+json"))


def _decode(part: Part) -> str:
    for mark, codec in _BYTE_ORDER_MARKS.items():
        if part.data.startswith(mark):
            return part.data.decode(codec, errors="replace")
    charset = part.charset.lower()
    return part.data.decode(charset if charset in _CHARSETS else "utf-8", errors="replace")


def _unless_empty(value: object) -> object | None:
    return None if value == "" else value


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the object in a JSON body (UTF-8, UTF-16 or UTF-32, as `json` detects).

    Raises:
        InvalidRequestBody: empty, broken, no object, nested too deep, or of too many values or
            escapes.
    """
    if sum(body.count(mark) for mark in _STRUCTURE) > MAX_STRUCTURE:
        raise InvalidRequestBody("Invalid JSON: too many values")
    if body.count(b"\\") > MAX_ESCAPES:
        raise InvalidRequestBody("Invalid JSON: too many escapes")
    try:
        # Strictly: left to itself `json` lets lone surrogates pass, at 0.2 us each and without
        # giving way to other threads.
        value = parse_json_text(body.decode(json.detect_encoding(body)))
    except ValueError:
        raise InvalidRequestBody("Invalid JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequestBody("Invalid JSON: an object is expected")
    return value


def parse_json_text(text: str) -> object:
    """Return any JSON value; integers of 20 digits and more become floats.

    ValueError says that it is no JSON, or nested too deep.
    """
    try:
        value: object = json.loads(text, parse_int=_parse_int)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _parse_int(digits: str) -> int | float:
    """Parse an integer of any length; Python refuses those of thousands of digits."""
    return int(digits) if len(digits) < 20 else float(digits)
