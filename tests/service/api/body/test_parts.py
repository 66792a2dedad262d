import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.body.parts import MAX_PARTS, parse_parts
from service.errors import InvalidRequestBody

TYPE = "multipart/form-data; boundary=XX"
FILE = b"\x00\xff\r\n--X\r\n--XXno\r\n\r\n--" + bytes(range(256))


def part(headers: bytes, data: bytes) -> bytes:
    return b"--XX\r\n" + headers + b"\r\n\r\n" + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


SCALE = part(b'Content-Disposition: form-data; name="scale"', b"2")
IMAGE = part(b'Content-Disposition: form-data; name="image"; filename="a.png"', FILE)


def test_text_and_file_parts_come_as_sent() -> None:
    scale, image = parse_parts(body(SCALE, IMAGE), TYPE)
    assert (scale.name, scale.text, scale.file_name) == ("scale", "2", None)
    assert (image.name, image.data, image.file_name) == ("image", FILE, "a.png")


@pytest.mark.parametrize(
    "disposition",
    [
        b"form-data; name=image; filename=a.png",
        b"form-data; name=image; filename=a.png; filename*=utf-8''a.png",
        b"form-data; name=image; filename*=utf-8''a.png",
        b"form-data; filename*=UTF-8''%c3%a4.png; name=image",
        b'form-data; filename="a;b\\"c.png"; name="image"',
        b'form-data;name="image";filename=""',
        b'FORM-DATA; NAME="image"; FileName="a.png"',
        b'form-data; name="image"; filename="\xc3\xa4.png"',
        b'form-data; name="image"; filename="C:\\photos\\a.png"',
    ],
)
def test_every_spelling_of_a_file_part(disposition: bytes) -> None:
    (image,) = parse_parts(body(part(b"Content-Disposition: " + disposition, FILE)), TYPE)
    assert (image.name, image.data) == ("image", FILE)
    assert image.file_name is not None


def test_the_content_type_may_come_before_the_disposition() -> None:
    headers = (
        b'Content-Type: image/png\r\nContent-Disposition: form-data; name="image"; filename="a"'
    )
    (image,) = parse_parts(body(part(headers, FILE)), TYPE)
    assert (image.name, image.file_name, image.data) == ("image", "a", FILE)


def test_a_part_of_a_binary_type_is_a_file_without_a_name() -> None:
    headers = b'Content-Disposition: form-data; name="image"\r\nContent-Type: image/jpeg'
    (image,) = parse_parts(body(part(headers, FILE)), TYPE)
    assert image.file_name is not None


@pytest.mark.parametrize(
    ("charset", "sent"),
    [
        (b"utf-8", "ä€".encode()),
        (b'"UTF-8"', "ä€".encode()),
        (b"iso-8859-1", "ä".encode("latin-1")),
        (b"utf-16", "ä€".encode("utf-16")),
        (b"no-such-charset", "ä€".encode()),
        (b"zip", "ä€".encode()),
    ],
)
def test_a_text_part_may_name_its_charset(charset: bytes, sent: bytes) -> None:
    headers = (
        b"Content-Type: text/plain; charset=" + charset + b"\r\n"
        b"Content-Disposition: form-data; name=scale"
    )
    (scale,) = parse_parts(body(part(headers, sent)), TYPE)
    assert scale.file_name is None
    assert scale.text.startswith("ä")


def test_bytes_outside_the_charset_do_not_raise() -> None:
    (scale,) = parse_parts(
        body(part(b"Content-Disposition: form-data; name=scale", b"\xff2")), TYPE
    )
    assert scale.text == "\ufffd2"


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="XX"',
        "multipart/form-data; charset=utf-8; boundary=XX",
        'Multipart/Form-Data;BOUNDARY="XX"',
        "multipart/form-data; boundary=XX;",
    ],
)
def test_every_spelling_of_the_boundary(content_type: str) -> None:
    assert len(parse_parts(body(SCALE), content_type)) == 1


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data;",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=YY",
        "multipart/form-data; boundary=" + "X" * 300,
        "multipart/form-data; xboundary=XX",
    ],
)
def test_a_missing_or_wrong_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequestBody):
        parse_parts(body(SCALE), content_type)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"--XX",
        b"--XX\r\n",
        SCALE,
        SCALE + IMAGE,
        SCALE + b"--XX",
        SCALE + b"--XX-",
        body(SCALE).replace(b"\r\n", b"\n"),
        body(part(b"Content-Disposition: form-data", b"2")),
        body(part(b"X: y", b"2")),
        body(b"--XX\r\n2\r\n"),
        body(part(b"Content-Disposition form-data", b"2")),
        body(part(b"Content-Disposition: form-data; name=scale; x=" + b"y" * 5000, b"2")),
        body(part(b"\r\n".join([b"A: b"] * 20), b"2")),
        b"not multipart at all",
        b"\r\n" * 1000,
        b"\x00" * 1000,
    ],
)
def test_a_broken_body_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidRequestBody):
        parse_parts(broken, TYPE)


def test_every_cut_is_refused() -> None:
    whole = body(SCALE, IMAGE)
    for size_bytes in range(len(whole) - len(b"\r\n")):
        with pytest.raises(InvalidRequestBody):
            parse_parts(whole[:size_bytes], TYPE)


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n", b"an epilogue"])
def test_what_follows_the_final_boundary_is_ignored(end: bytes) -> None:
    assert len(parse_parts(SCALE + b"--XX--\r\n" + end, TYPE)) == 1


def test_the_final_boundary_needs_no_line_end() -> None:
    assert len(parse_parts(SCALE + b"--XX--", TYPE)) == 1


def test_an_empty_form_has_no_parts() -> None:
    assert parse_parts(b"--XX--\r\n", TYPE) == []


def test_the_number_of_parts_is_limited() -> None:
    assert len(parse_parts(body(*[SCALE] * MAX_PARTS), TYPE)) == MAX_PARTS
    with pytest.raises(InvalidRequestBody):
        parse_parts(body(*[SCALE] * (MAX_PARTS + 1)), TYPE)


@pytest.mark.parametrize(
    "filling", [SCALE, b"\r\n--X", b"\r", b"\r\n--XX ", b"--XX\r\n", b"a", b"A:", b"A: b\r\n"]
)
def test_hostile_bodies_take_no_time(filling: bytes) -> None:
    hostile = SCALE + filling * (5_000_000 // len(filling))
    started = time.process_time()
    with pytest.raises(InvalidRequestBody):
        parse_parts(hostile, TYPE)
    assert time.process_time() - started < 2


@given(st.binary(max_size=300))
def test_any_file_comes_back_as_it_was(data: bytes) -> None:
    boundary = "b" + data.hex()[:200]  # in hexadecimal, so that it never stands in the data
    head = f"--{boundary}\r\nContent-Disposition: form-data; name=image; filename=x\r\n\r\n"
    raw = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    (image,) = parse_parts(raw, f"multipart/form-data; boundary={boundary}")
    assert image.data == data


@given(st.binary(max_size=300))
def test_any_bytes_are_parts_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidRequestBody):
        assert parse_parts(data, "multipart/form-data; boundary=-") is not None
