import codecs
import contextlib
import json
import math
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaled.api.request.fields import (
    MAX_ESCAPES,
    MAX_STRUCTURE,
    MAX_TEXT_BYTES,
    Fields,
    UnknownField,
    fields_of_json,
    fields_of_parts,
    parse_json,
)
from upscaled.api.request.multipart import Part
from upscaled.errors import InvalidRequestBody

URL = "https://example.com/a.jpg"
PNG = b"\x89PNG\r\n\x1a\n\x00"
TYPES = [
    *("", "text/plain", "text/html", "application/json", "multipart/form-data"),
    *("application/octet-stream", "image/png", "application/problem+json"),
    "application/x-whatever",
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


def test_unknown_json_fields_are_noted() -> None:
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
def test_a_text_field_is_text_whatever_its_type_and_file_name(
    media_type: str, file_name: str | None
) -> None:
    scale = Part("scale", b"2", file_name, media_type)
    image_url = Part("image_url", URL.encode(), file_name, media_type)
    fields = fields_of_parts([scale, image_url])
    assert str(fields.scale) == "2"
    assert fields.image_url == URL


@pytest.mark.parametrize("file_name", FILE_NAMES)
@pytest.mark.parametrize("media_type", TYPES)
def test_an_image_is_a_file_whatever_its_type_and_file_name(
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


def test_field_names_are_case_sensitive() -> None:
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
def test_a_part_may_name_its_charset_and_a_byte_order_mark_wins(charset: str, sent: bytes) -> None:
    assert str(value_of(sent, "text/plain", charset)).startswith("ä")


def test_bytes_outside_the_charset_do_not_raise() -> None:
    assert value_of(b"\xff2") == "\ufffd2"


def test_a_text_over_the_limit_is_not_decoded() -> None:
    longest = b"2" * MAX_TEXT_BYTES
    assert value_of(longest) == longest.decode()
    assert value_of(longest + b"2") == longest + b"2"
    hostile = b"\x00\xdc" * 10_000_000  # each pair is an error, at 0.2 us
    started = time.process_time()
    assert value_of(hostile, "", "utf-16") == hostile
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json_is_read(encoding: str) -> None:
    assert parse_json('{"scale": 2, "ä": null}'.encode(encoding)) == {"scale": 2, "ä": None}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b'{"scale": 2', b"{'scale': 2}", b"{scale: 2}", b'{"scale": 2,}'),
        *(b"[]", b"2", b'"text"', b"null", b"true", b"[{}]", b'{"a": 1} x', b"\xff\xfe\x00"),
        *(b'{"a": "\xff"}', b'{"a": "\n"}', b'{"a":' * 2000, b"[" * 9_000, b"\x00" * 100),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestBody):
        parse_json(body)


def test_a_number_of_any_length_is_a_number() -> None:
    assert math.isnan(parse_json(b'{"scale": NaN}')["scale"])
    assert parse_json(b'{"scale": 1e999}')["scale"] == math.inf
    assert parse_json(b'{"scale": ' + b"9" * 6000 + b"}")["scale"] == math.inf


def test_of_a_repeated_name_in_json_the_last_counts() -> None:
    assert parse_json(b'{"scale": 2, "scale": 4}') == {"scale": 4}


def test_a_large_text_is_read() -> None:
    assert len(parse_json(b'{"image": "' + b"A" * 5_000_000 + b'"}')["image"]) == 5_000_000


def test_many_values_are_refused_before_they_fill_the_memory() -> None:
    fits = json.dumps({"a": [0] * (MAX_STRUCTURE - 10)}).encode()
    assert len(parse_json(fits)["a"]) == MAX_STRUCTURE - 10
    bomb = b'{"a":[' + b"{}," * 5_000_000 + b"{}]}"
    tracemalloc.start()
    with pytest.raises(InvalidRequestBody, match="too many values"):
        parse_json(bomb)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_many_escapes_are_refused_before_they_are_read() -> None:
    assert len(parse_json(b'{"a": "' + b"\\/" * MAX_ESCAPES + b'"}')["a"]) == MAX_ESCAPES
    with pytest.raises(InvalidRequestBody, match="too many escapes"):
        parse_json(b'{"a": "' + b"\\/" * (MAX_ESCAPES + 1) + b'"}')


@pytest.mark.parametrize(
    ("start", "repeated", "times", "end"),
    [
        (b"\xff\xfe{\x00", b"\x00\xd8", 5_000_000, b""),
        (b"\xff\xfe{\x00", b"\x00\xdc", 5_000_000, b""),
        (b'{"a": "', b"\xed\xa0\x80", 3_000_000, b'"}'),
        (b'{"a": "', b"\xff", 10_000_000, b'"}'),
        (b'{"scale": ', b"9", 10_000_000, b"}x"),
        (b'{"scale": 0.', b"0", 10_000_000, b"1}x"),
        (b'{"scale": 1e', b"9", 10_000_000, b"}x"),
        (b'{"scale": -', b"-", 10_000_000, b"}"),
        (b"", b'"', 10_000_000, b""),
        (b"", b" ", 10_000_000, b""),
        (b"", b"{", 9_999, b""),
    ],
)
def test_hostile_bodies_are_parsed_in_little_time(
    start: bytes, repeated: bytes, times: int, end: bytes
) -> None:
    hostile = start + repeated * times + end
    started = time.process_time()
    with pytest.raises(InvalidRequestBody):
        parse_json(hostile)
    assert time.process_time() - started < 0.5


def test_a_lone_surrogate_may_be_escaped_and_not_be_encoded() -> None:
    assert parse_json(b'{"a": "\\ud800"}') == {"a": "\ud800"}
    for encoding in ("utf-8", "utf-16", "utf-32"):
        with pytest.raises(InvalidRequestBody):
            parse_json('{"a": "\ud800"}'.encode(encoding, "surrogatepass"))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestBody):
        assert isinstance(parse_json(body), dict)


def expected(*unknown: UnknownField, image: bool = True, scale: bool = True) -> str:
    fields = Fields(None if image else b"", None, None if scale else 2, unknown)
    return fields.name_expected()


@pytest.mark.parametrize(
    "name",
    [
        *("imageUrl", "imageURL", "image-url", "ImageUrl", "Image_Url", "image url", "url", "URL"),
        *("image_urls", "img_url", "src", "source", "uri", "link", "fileUrl", "input", "input_url"),
        *("image", "Image", "image[]", "file", "photo", "picture", "data", "base64"),
        "image_base64",
    ],
)
def test_a_text_under_another_name_gets_the_hint_image_url(name: str) -> None:
    assert expected(UnknownField(name)) == f"; instead of {name} send image_url"


@pytest.mark.parametrize(
    "name",
    [
        *("file", "files", "File", "files[]", "files[0]", "upload", "photo", "img", "image[]"),
        *("image_file", "imageFile", "Image", "picture", "data", "media", "url", "input"),
    ],
)
def test_a_file_under_another_name_gets_the_hint_image(name: str) -> None:
    hint = "" if name == "files[0]" else f"; instead of {name} send image"
    assert expected(UnknownField(name, is_file=True)) == hint


@pytest.mark.parametrize(
    "name", ["Scale", "scaleFactor", "scale_factor", "factor", "zoom", "upscale", "upscale-factor"]
)
def test_a_scale_under_another_name_gets_the_hint_scale(name: str) -> None:
    assert expected(UnknownField(name)) == f"; instead of {name} send scale"


def test_only_missing_fields_are_named_and_each_once() -> None:
    fields = [UnknownField(name) for name in ("url", "src", "zoom", "factor", "mode", "format")]
    both = "; instead of url send image_url; instead of zoom send scale"
    assert expected(*fields) == both
    assert expected(*fields, image=False) == "; instead of zoom send scale"
    assert expected(*fields, scale=False) == "; instead of url send image_url"
    assert expected(*fields, image=False, scale=False) == ""


@pytest.mark.parametrize(
    "name",
    ["", "mode", "x" * 33, "url\r\n", "<url>", "u\u0155l", "url" + "_" * 30, "{url}", "u/rl"],
)
def test_no_other_name_is_repeated(name: str) -> None:
    assert expected(UnknownField(name)) == ""


def test_the_hint_of_the_longest_name_is_short() -> None:
    longest = "input_image_url" + "_" * 17, "upscale_factor" + "_" * 18
    fields = [UnknownField(name) for name in longest]
    assert len("Missing parameter: image or image_url, scale" + expected(*fields)) <= 200
