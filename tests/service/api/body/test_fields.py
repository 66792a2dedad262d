import codecs
import json
import time
from typing import Any

import pytest

from upscaled.api.body.fields import (
    MAX_TEXT_BYTES,
    Fields,
    UnknownField,
    fields_of_json,
    fields_of_parts,
)
from upscaled.api.body.parts import Part

URL = "https://example.com/a.jpg"
PNG = b"\x89PNG\r\n\x1a\n\x00"
TYPES = [
    *("", "text/plain", "text/html", "application/json", "multipart/form-data"),
    *(
        "application/octet-stream",
        "image/png",
        "application/problem+json",
        "application/x-whatever",
    ),
]
FILE_NAMES = [None, "", "blob", "a.png"]


def text(name: str, value: str) -> Part:
    return Part(name, value.encode())


def file(name: str, data: bytes, file_name: str = "a.png") -> Part:
    return Part(name, data, file_name)


# JSON bodies.


def test_json_gives_a_url_and_never_an_image() -> None:
    fields = fields_of_json({"image": "data:image/png;base64,AA", "image_url": URL, "scale": 2})
    assert fields == Fields(None, URL, 2, (UnknownField("image"),))


@pytest.mark.parametrize("empty", [None, ""])
def test_null_and_empty_are_absent(empty: Any) -> None:
    assert fields_of_json({"image_url": empty, "scale": empty}) == Fields(None, None, None)
    assert fields_of_json({"image_url": False, "scale": 0}) == Fields(None, False, 0)


def test_what_json_holds_besides_is_noted() -> None:
    assert fields_of_json({"imageUrl": URL, "x": 1}).unknown == (
        UnknownField("imageUrl"),
        UnknownField("x"),
    )


# Forms: the name decides.


def test_a_form_gives_a_file_and_texts() -> None:
    fields = fields_of_parts([text("scale", "2"), file("image", b"photo"), text("image_url", URL)])
    assert fields == Fields(b"photo", URL, "2")


@pytest.mark.parametrize("file_name", FILE_NAMES)
@pytest.mark.parametrize("media_type", TYPES)
def test_a_text_field_is_one_whatever_its_type_and_file_name(
    media_type: str, file_name: str | None
) -> None:
    scale = Part("scale", b"2", file_name, media_type)
    image_url = Part("image_url", URL.encode(), file_name, media_type)
    fields = fields_of_parts([scale, image_url])
    assert str(fields.scale) == "2"
    assert fields.image_url == URL


@pytest.mark.parametrize("file_name", FILE_NAMES)
@pytest.mark.parametrize("media_type", TYPES)
def test_a_picture_is_one_whatever_its_type_and_file_name(
    media_type: str, file_name: str | None
) -> None:
    assert fields_of_parts([Part("image", PNG, file_name, media_type)]).image == PNG
    tiff = b"II*\x00\x08\x00\x00\x00"
    assert fields_of_parts([Part("image", tiff, file_name, media_type)]).image == tiff
    latin = b"no UTF-8: \xff\xd8"
    assert fields_of_parts([Part("image", latin, file_name, media_type)]).image == latin


@pytest.mark.parametrize(
    ("media_type", "file_name", "is_file"),
    [
        ("", None, False),
        ("text/plain", None, False),
        ("application/json", None, False),
        ("multipart/form-data", None, False),
        ("image/png", None, True),
        ("application/octet-stream", None, True),
        ("", "a.png", True),
        ("", "", True),
        ("text/plain", "a.txt", True),
    ],
)
def test_text_as_the_image_is_text_only_by_all_of_its_marks(
    media_type: str, file_name: str | None, is_file: bool
) -> None:
    part = Part("image", URL.encode(), file_name, media_type)
    assert fields_of_parts([part]).image == (URL.encode() if is_file else URL)


def test_a_long_text_as_the_image_is_text_though_its_beginning_ends_in_a_character() -> None:
    image = fields_of_parts([Part("image", b"x" + "ä".encode() * MAX_TEXT_BYTES)]).image
    assert image == "x" + "ä" * (MAX_TEXT_BYTES // 2 - 1)


def test_of_a_repeated_name_the_last_counts() -> None:
    parts = [file("image", b"one"), text("scale", "2"), file("image", b"two"), text("scale", "4")]
    assert fields_of_parts(parts) == Fields(b"two", None, "4")


def test_a_file_field_that_a_browser_left_empty_is_absent() -> None:
    assert fields_of_parts([file("image", b"", file_name="")]).image is None
    assert fields_of_parts([Part("image", b"", "", "application/octet-stream")]).image is None
    assert fields_of_parts([Part("image", b"")]).image is None
    assert fields_of_parts([file("image", b"", file_name="a.png")]).image == b""
    assert fields_of_parts([Part("image", b"", None, "image/png")]).image == b""
    assert fields_of_parts([file("image", b"photo", file_name="")]).image == b"photo"


def test_names_are_taken_letter_for_letter() -> None:
    parts = [file("Image", b"photo"), text("SCALE", "2"), text("image[]", "x")]
    assert fields_of_parts(parts) == Fields(
        None,
        None,
        None,
        (UnknownField("Image", is_file=True), UnknownField("SCALE"), UnknownField("image[]")),
    )


# The value of a text part.


def value_of(data: bytes, media_type: str = "", charset: str = "") -> object:
    return fields_of_parts([Part("scale", data, None, media_type, charset)]).scale


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("2\n", "2"),
        ("2\r\n", "2"),
        (URL + "\n", URL),
        ("2\n\n", "2\n"),
        ("2\r", "2\r"),
        ("\n2", "\n2"),
        (" 2 ", " 2 "),
        ("2 ", "2 "),
        ("", None),
        ("\n", None),
        ("\r\n", None),
        ('"2"', "2"),
        ('"2"\n', "2"),
        ('" 2 "', " 2 "),
        (f'"{URL}"', URL),
        (json.dumps(URL).replace("/", "\\/"), URL),
        ('""', None),
        ('"', '"'),
        ('"2', '"2'),
        ('"a"b"', '"a"b"'),
        ("'2'", "'2'"),
        ("2.0", "2.0"),
        ("true", "true"),
        ("null", "null"),
        ("[2]", "[2]"),
    ],
)
def test_a_text_loses_one_line_end_and_quotes_of_json(sent: str, value: object) -> None:
    for media_type in ("", "text/plain", "application/octet-stream", "multipart/form-data"):
        assert value_of(sent.encode(), media_type) == value


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("2", 2),
        (" 2 ", 2),
        ("2\r\n", 2),
        ("2.0", 2.0),
        ('"2"', "2"),
        ('" 2 "', " 2 "),
        ("null", None),
        ('""', None),
        ("", None),
        ("true", True),
        ("[2]", [2]),
        ("9" * 6000, float("inf")),
        (URL, URL),
        (f'"{URL}"', URL),
        ("{", "{"),
        ("[" * 5000, "[" * 5000),
    ],
)
@pytest.mark.parametrize("media_type", ["application/json", "text/json", "application/x+json"])
def test_a_part_of_a_json_type_holds_json_or_else_text(
    media_type: str, sent: str, value: object
) -> None:
    got = value_of(sent.encode(), media_type)
    assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize(
    ("charset", "sent"),
    [
        ("", "ä€".encode()),
        ("utf-8", "ä€".encode()),
        ("UTF-8", "ä€".encode()),
        ("iso-8859-1", "ä".encode("latin-1")),
        ("utf-16", "ä€".encode("utf-16")),
        ("utf-16", "ä€".encode("utf-16-le")),
        ("no-such-charset", "ä€".encode()),
        ("zip", "ä€".encode()),
        ("iso-8859-1", codecs.BOM_UTF8 + "ä€".encode()),
        ("", "ä€".encode("utf-16")),
        ("", codecs.BOM_UTF16_BE + "ä€".encode("utf-16-be")),
    ],
)
def test_a_part_may_name_its_charset_and_a_mark_tells_more(charset: str, sent: bytes) -> None:
    assert str(value_of(sent, "text/plain", charset)).startswith("ä")


def test_bytes_outside_the_charset_do_not_raise() -> None:
    assert value_of(b"\xff2") == "\ufffd2"


def test_a_text_beyond_all_bounds_is_no_text_and_not_even_decoded() -> None:
    longest = b"2" * MAX_TEXT_BYTES
    assert value_of(longest) == longest.decode()
    assert value_of(longest + b"2") == longest + b"2"
    hostile = b"\x00\xdc" * 10_000_000  # each pair is an error, at 0.2 us
    started = time.process_time()
    assert value_of(hostile, "", "utf-16") == hostile
    assert time.process_time() - started < 0.2
