"""The fields of a request, out of either body kind, before any check.

What a part of a form is follows from its name: `image` is a file, `image_url` and `scale` are text,
whatever type or file name a client library gives them.
"""

import codecs
from dataclasses import dataclass
from typing import Any, Final

from upscaled.api.body.json_object import parse_json_text
from upscaled.api.body.parts import Part

# Longer than any URL that is taken, in any charset. What is longer has no meaning as a text.
MAX_TEXT_BYTES: Final = 64 * 1024

_KNOWN: Final = frozenset({"image", "image_url", "scale"})
# Codecs a text part may name; Python knows some whose cost is quadratic.
_CHARSETS: Final = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "utf-16"}
# A byte order mark wins over any name (WHATWG Encoding, 6): Windows' editors write them.
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that the contract does not know. `is_file`: it looks like a picture, not a text."""

    name: str
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """The three known fields; None where absent, null or empty.

    `image` is a str, the text's beginning, where a form holds text in the file's place. `image_url`
    and `scale` are any JSON value, or bytes where a form's part is too long for a text.
    """

    image: bytes | str | None
    image_url: object | None
    scale: object | None
    unknown: tuple[UnknownField, ...] = ()


def fields_of_json(values: dict[str, Any]) -> Fields:
    """`image` is not a JSON field: base64 or a data URI there counts as no image."""
    return Fields(
        None,
        _unless_empty(values.get("image_url")),
        _unless_empty(values.get("scale")),
        tuple(UnknownField(name) for name in values if name not in _KNOWN - {"image"}),
    )


def fields_of_parts(parts: list[Part]) -> Fields:
    """Of a repeated name the last counts."""
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
    )


def _image_in(part: Part) -> bytes | str | None:
    """A picture, or the text in its place; None for a file field that a browser left empty.

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
    """How the data begin, if that is text: every picture's header has bytes that text has not."""
    beginning = data[:MAX_TEXT_BYTES]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(
            beginning
        )  # it may end in a character
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


def _is_of_a_file(part: Part) -> bool:
    """Whether its type is one that only files have."""
    is_of_a_text = part.media_type.startswith("text/") or _is_json(part)
    return part.media_type not in ("", "multipart/form-data") and not is_of_a_text


def _value_in(part: Part) -> object | None:
    """The value that a part stands for, whatever it is said to be.

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
