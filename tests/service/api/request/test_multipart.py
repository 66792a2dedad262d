import base64
import contextlib
import email.generator
import email.mime.image
import email.mime.multipart
import email.mime.text
import email.policy
import io
import quopri
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.counting import assert_linear, count_steps
from upscaled.api.request.multipart import (
    MAX_FALSE_DELIMITERS,
    MAX_PADDING_BYTES,
    MAX_PART_HEAD_BYTES,
    MAX_PART_HEADERS,
    MAX_PARTS,
    parse_parts,
    parse_value,
)
from upscaled.errors import InvalidRequestBody

TYPE = "multipart/form-data; boundary=XX"
FILE = b"\x00\xff\r\n--X\r\n--XXno\r\n\r\n--" + bytes(range(256))


def part(headers: bytes, data: bytes) -> bytes:
    return b"--XX\r\n" + headers + b"\r\n\r\n" + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


SCALE = part(b'Content-Disposition: form-data; name="scale"', b"2")
IMAGE = part(b'Content-Disposition: form-data; name="image"; filename="a.png"', FILE)


def test_text_and_file_parts_are_read_as_sent() -> None:
    scale, image = parse_parts(body(SCALE, IMAGE), TYPE)
    assert (scale.name, scale.data, scale.file_name) == ("scale", b"2", None)
    assert (image.name, image.data, image.file_name) == ("image", FILE, "a.png")


@pytest.mark.parametrize(
    "disposition",
    [
        b"form-data; name=image; filename=a.png",
        b"form-data; name=image; filename=a.png; filename*=utf-8''a.png",
        b"form-data; name=image; filename*=utf-8''a.png",
        b"form-data; filename*=UTF-8''%c3%a4.png; name=image",
        b"form-data; filename*0=a.; filename*1=png; name=image",
        b"form-data; filename*0*=UTF-8''a.png; name=image",
        b"form-data ; name = image ; filename = a.png",
        *(b"form-data; name=image; filename=a b.png", b"attachment; name=image; filename=a.png"),
        b'form-data; name="image"; filename="\xe4.png"',
        b'form-data; filename="a;b\\"c.png"; name="image"',
        *(b'form-data;name="image";filename=""', b'FORM-DATA; NAME="image"; FileName="a.png"'),
        b'form-data; name="image"; filename="\xc3\xa4.png"',
        b'form-data; name="image"; filename="C:\\photos\\a.png"',
    ],
)
def test_every_spelling_of_a_file_part_is_read(disposition: bytes) -> None:
    (image,) = parse_parts(body(part(b"Content-Disposition: " + disposition, FILE)), TYPE)
    assert (image.name, image.data) == ("image", FILE)
    assert image.file_name is not None


def test_the_content_type_may_precede_the_disposition() -> None:
    headers = (
        b'Content-Type: image/png\r\nContent-Disposition: form-data; name="image"; filename="a"'
    )
    (image,) = parse_parts(body(part(headers, FILE)), TYPE)
    assert (image.name, image.file_name, image.data) == ("image", "a", FILE)


def test_type_and_charset_of_a_part_are_kept() -> None:
    headers = (
        b'Content-Type: Text/Plain; charset="UTF-16"\r\nContent-Disposition: form-data; name=scale'
    )
    (scale,) = parse_parts(body(part(headers, b"2")), TYPE)
    assert (scale.media_type, scale.charset) == ("text/plain", "UTF-16")
    (bare,) = parse_parts(body(SCALE), TYPE)
    assert (bare.media_type, bare.charset, bare.file_name) == ("", "", None)


@pytest.mark.parametrize(
    "content_type",
    [
        *('multipart/form-data; boundary="XX"', "multipart/form-data; charset=utf-8; boundary=XX"),
        *('Multipart/Form-Data;BOUNDARY="XX"', "multipart/form-data; boundary=XX;"),
        *("multipart/form-data; boundary = XX ", 'multipart/form-data; boundary="XX "'),
        'multipart/form-data;;; boundary="XX"; ;',
        "multipart/form-data; boundary=YY; boundary=XX",
    ],
)
def test_every_spelling_of_the_boundary_is_read(content_type: str) -> None:
    assert len(parse_parts(body(SCALE), content_type)) == 1


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
        body(SCALE).replace(b"\r\n", b"\r"),
        b"a preamble alone\r\n" + body(),
        body(part(b"Content-Disposition: form-data; name=scale\r\nno colon", b"2")),
        body(part(b" Content-Disposition: form-data; name=scale", b"2")),
        body(part(b": form-data; name=scale", b"2")),
        body(part(b"Content-Disposition: form-data", b"2")),
        body(part(b"X: y", b"2")),
        body(b"--XX\r\n2\r\n"),
        body(part(b"Content-Disposition form-data", b"2")),
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


def test_the_final_boundary_needs_no_line_end() -> None:
    assert len(parse_parts(SCALE + b"--XX--", TYPE)) == 1


def test_an_empty_form_has_no_parts() -> None:
    assert parse_parts(b"--XX--\r\n", TYPE) == []


def test_the_number_of_parts_is_limited() -> None:
    assert len(parse_parts(body(*[SCALE] * MAX_PARTS), TYPE)) == MAX_PARTS
    with pytest.raises(InvalidRequestBody):
        parse_parts(body(*[SCALE] * (MAX_PARTS + 1)), TYPE)


def test_the_number_of_headers_of_a_part_is_limited() -> None:
    for count, is_accepted in ((MAX_PART_HEADERS, True), (MAX_PART_HEADERS + 1, False)):
        more = [b"A%d: b" % number for number in range(count - 1)]
        check_accepted(part(b"\r\n".join([*more, DISPOSITION]), b"2"), is_accepted=is_accepted)


def test_the_bytes_of_a_parts_headers_are_limited() -> None:
    spare = MAX_PART_HEAD_BYTES - len(DISPOSITION + b"\r\nA: \r\n\r\n")
    for size, is_accepted in ((spare, True), (spare + 1, False)):
        check_accepted(part(DISPOSITION + b"\r\nA: " + b"b" * size, b"2"), is_accepted=is_accepted)


def test_the_blanks_behind_a_boundary_are_limited() -> None:
    for size, is_accepted in ((MAX_PADDING_BYTES, True), (MAX_PADDING_BYTES + 1, False)):
        padded = SCALE.replace(b"--XX", b"--XX" + b" " * size)
        check_accepted(padded, is_accepted=is_accepted)


def test_a_limited_number_of_lines_may_look_like_a_boundary() -> None:
    for count, is_accepted in ((MAX_FALSE_DELIMITERS, True), (MAX_FALSE_DELIMITERS + 1, False)):
        data = b"x" + b"\r\n--XXy" * count
        check_accepted(part(DISPOSITION, data), data, is_accepted=is_accepted)


DISPOSITION = b"Content-Disposition: form-data; name=scale"


def check_accepted(raw: bytes, data: bytes = b"2", *, is_accepted: bool) -> None:
    if is_accepted:
        assert [each.data for each in parse_parts(body(raw), TYPE)] == [data]
    else:
        with pytest.raises(InvalidRequestBody):
            parse_parts(body(raw), TYPE)


def test_a_boundary_within_a_line_is_data() -> None:
    with pytest.raises(InvalidRequestBody):
        parse_parts(b"x" + body(SCALE), TYPE)


def test_blanks_before_a_colon_are_read() -> None:
    (scale,) = parse_parts(body(part(DISPOSITION.replace(b":", b" :"), b"2")), TYPE)
    assert scale.data == b"2"


def test_of_a_repeated_header_the_last_counts() -> None:
    headers = b"Content-Disposition: form-data; name=other\r\n" + DISPOSITION
    assert parse_parts(body(part(headers, b"2")), TYPE)[0].name == "scale"


def test_lines_may_end_in_lf_alone() -> None:
    data = FILE.replace(b"--XXno", b"--XXno\r\n")
    raw = body(SCALE, part(b"Content-Disposition: form-data; name=image; filename=a", b"@"))
    scale, image = parse_parts(raw.replace(b"\r\n", b"\n").replace(b"@", data), TYPE)
    assert (scale.data, image.data) == (b"2", data)


def test_a_lone_lf_is_data_where_lines_end_in_crlf() -> None:
    data = b"a\n--XX\nb\n--XX--\nc\r--XX--\r"
    (image,) = parse_parts(
        body(part(b"Content-Disposition: form-data; name=image; filename=a", data)), TYPE
    )
    assert image.data == data


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_a_part_may_be_empty_with_or_without_a_line_of_its_own(newline: bytes) -> None:
    lines = [b"--XX", DISPOSITION, b""]
    for more in ([], [b""]):
        raw = newline.join([*lines, *more, b"--XX--", b""])
        assert [each.data for each in parse_parts(raw, TYPE)] == [b""]


def encoded(encoding: bytes, data: bytes) -> bytes:
    headers = DISPOSITION + b"\r\nContent-Transfer-Encoding: " + encoding
    return body(part(headers, data))


def test_base64_and_quoted_printable_are_decoded() -> None:
    for data in (b"", b"2", FILE, FILE * 5000):  # the last one in more than one piece
        lines = base64.encodebytes(data)
        for sent in (lines, lines.replace(b"\n", b"\r\n"), base64.b64encode(data)):
            assert parse_parts(encoded(b"Base64", sent), TYPE)[0].data == data
    text = "ä = €\n".encode() * 50
    sent = quopri.encodestring(text, quotetabs=True)
    assert parse_parts(encoded(b"quoted-printable", sent), TYPE)[0].data == text
    sent = b"=68ttps://example.com/=\r\na.png"
    (url,) = parse_parts(encoded(b"Quoted-Printable", sent), TYPE)
    assert url.data == b"https://example.com/a.png"


@pytest.mark.parametrize("sent", [b"Q", b"QQ", b"QQ=", b"\xff\xd8\xff", b"Q!Q=", b"Mg==Mg=="])
def test_broken_base64_is_refused(sent: bytes) -> None:
    with pytest.raises(InvalidRequestBody):
        parse_parts(encoded(b"base64", sent), TYPE)


@pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.SMTP, email.policy.HTTP])
def test_forms_of_the_email_library_are_read(policy: Any) -> None:
    """It folds headers, adds some of its own, encodes data and may end its lines in LF."""
    form = email.mime.multipart.MIMEMultipart("form-data")
    form.preamble = "This is a multi-part message in MIME format."
    form.epilogue = "the end"
    image = email.mime.image.MIMEImage(FILE, "png")
    name = "a picture with a name so long that the line has to be folded somewhere.png"
    image.add_header("Content-Disposition", "form-data", name="image", filename=name)
    scale = email.mime.text.MIMEText("2", "plain", "utf-8")
    scale.add_header("Content-Disposition", "form-data", name="scale")
    for each in (image, scale):
        form.attach(each)
    file = io.BytesIO()
    email.generator.BytesGenerator(file, policy=policy).flatten(form)
    got_image, got_scale = parse_parts(file.getvalue(), form["Content-Type"])
    assert (got_image.name, got_image.data) == ("image", FILE)
    assert got_image.file_name is not None
    assert (got_scale.name, got_scale.data, got_scale.media_type) == ("scale", b"2", "text/plain")


HEAD = b"--XX\r\n" + DISPOSITION + b"\r\n\r\n"


@pytest.mark.parametrize(
    "filling",
    [
        *(SCALE, b"\r\n--X", b"\r", b"\r\n--XX ", b"--XX\r\n", b"a", b"A:", b"A: b\r\n", b"\r\n"),
        *(b"\r\n--XX", b"\r\n--XXy", b" ", b"\n", b"-", b"\r\n ", b";"),
    ],
)
@pytest.mark.parametrize(
    "before", [b"", SCALE, HEAD, HEAD[:-2], HEAD + b"\r\n--XX", b"--XX\r\nA: b;"]
)
def test_hostile_bodies_are_parsed_in_little_time(before: bytes, filling: bytes) -> None:
    hostile = before + filling * (5_000_000 // len(filling))
    started = time.process_time()
    _try_to_parse(hostile)
    assert time.process_time() - started < 1
    assert count_steps(lambda: _try_to_parse(hostile)) < 20_000  # never one for each byte


def _try_to_parse(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequestBody):
        parse_parts(raw, TYPE)


@given(st.binary(max_size=300))
def test_any_file_is_returned_unchanged(data: bytes) -> None:
    boundary = "b" + data.hex()[:200]  # in hexadecimal, so that it never stands in the data
    head = f"--{boundary}\r\nContent-Disposition: form-data; name=image; filename=x\r\n\r\n"
    raw = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    (image,) = parse_parts(raw, f"multipart/form-data; boundary={boundary}")
    assert image.data == data


names = st.sampled_from(["image", "scale", "image_url", "a"])
datas = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"\r", b"\n", b"--", b"BB", b" ", b"x", b"\x00"])).map(b"".join),
)


@given(
    contents=st.lists(st.tuples(names, datas), min_size=1, max_size=4),
    newline=st.sampled_from([b"\r\n", b"\n"]),
    preamble=st.sampled_from([b"", b"@", b"text@", b"--BBx@", b"text@@--B@"]),
    epilogue=st.sampled_from([b"", b"@", b"@text", b" @--BB@"]),
    padding=st.sampled_from([b"", b" ", b"\t \t"]),
    fold=st.sampled_from([b" ", b"@ ", b"@\t"]),
    encoding=st.sampled_from([b"", b"binary", b"base64"]),
)
def test_a_form_generated_by_the_rules_of_mime_is_parsed_to_its_parts(
    contents: list[tuple[str, bytes]],
    newline: bytes,
    preamble: bytes,
    epilogue: bytes,
    padding: bytes,
    fold: bytes,
    encoding: bytes,
) -> None:
    raw = preamble
    for name, data in contents:
        raw += (
            b"--BB"
            + padding
            + b"@Content-Disposition: form-data;"
            + fold
            + b"name=%s" % (name.encode())
        )
        raw += b"@Content-Transfer-Encoding:" + encoding if encoding else b""
        sent = base64.encodebytes(data) if encoding == b"base64" else data
        raw += b"@@" + sent.replace(b"@", b"\x00AT\x00") + b"@"
    raw = (raw + b"--BB--" + epilogue).replace(b"@", newline).replace(b"\x00AT\x00", b"@")
    if raw.count(newline + b"--BB") + raw.startswith(b"--BB") != len(contents) + 1 + (
        preamble + epilogue
    ).count(b"--BB"):
        return  # a boundary stands in the data: no sender would have chosen it
    got = parse_parts(raw, "multipart/form-data; boundary=BB")
    assert [(each.name, each.data) for each in got] == contents


@given(st.binary(max_size=300))
def test_any_bytes_are_parts_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidRequestBody):
        assert parse_parts(data, "multipart/form-data; boundary=-") is not None


@pytest.mark.parametrize(
    ("header", "value", "parameters"),
    [
        ("", "", {}),
        ("Text/Plain", "text/plain", {}),
        (" a/b ; c=d", "a/b", {"c": "d"}),
        ("a/b;C=D;e=F;", "a/b", {"c": "D", "e": "F"}),
        ("a/b; c = d ; e = f g ;", "a/b", {"c": "d", "e": "f g"}),
        ('a/b; c="d; e=\\"f\\""; g=h', "a/b", {"c": 'd; e="f"', "g": "h"}),
        (r'a/b; c="C:\d\e"', "a/b", {"c": r"C:\d\e"}),
        (r'a/b; c="d\\"; e=f', "a/b", {"c": "d\\", "e": "f"}),
        ('a/b; c="open', "a/b", {"c": "open"}),
        ('a/b; c="d"e; f=g', "a/b", {"c": "d", "f": "g"}),
        ("a/b; c=1; c=2", "a/b", {"c": "2"}),
        ("a/b; c; d=; =e", "a/b", {"d": "", "": "e"}),
        ("a/b; boundary=----=_Part_0_1.2", "a/b", {"boundary": "----=_Part_0_1.2"}),
        ('a/b;;; ;c=";"', "a/b", {"c": ";"}),
    ],
)
def test_a_header_is_split_into_its_value_and_parameters(
    header: str, value: str, parameters: dict[str, str]
) -> None:
    assert parse_value(header) == (value, parameters)


@given(st.text(alphabet='ab;= "\\\\\t*', max_size=40))
def test_any_text_is_read(header: str) -> None:
    value, parameters = parse_value(header)
    assert ";" not in value + "".join(parameters)


@pytest.mark.parametrize("filling", ["; ", "=", 'a="', 'a="\\"', "a;", "a=b;", 'a="b";', " ", "\\"])
def test_the_steps_of_parsing_grow_linearly_with_the_header(filling: str) -> None:
    assert_linear(parse_value, lambda count: "a/b;" + filling * count, 1000)
