"""The grammar of a request's head, beside the one that Node's parser knows (llhttp)."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.api.counting import SeenBytes, count_calls
from upscaled.api.protocol.head import (
    MAX_EMPTY_LINES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_REQUEST_LINE_BYTES,
    HeadReader,
    LineReader,
    MalformedRequest,
    RequestHead,
)


def read(data: bytes, size_bytes: int = 1 << 20) -> RequestHead:
    """The head in `data`, given in pieces of a size; all of it must be taken."""
    reader = HeadReader()
    for at in range(0, len(data), size_bytes):
        piece = data[at : at + size_bytes]
        assert reader.feed(piece) == len(piece)
    assert reader.head is not None, "the head has no end"
    assert reader.size_bytes == len(data)
    return reader.head


def request(*lines: str, start: str = "GET / HTTP/1.1", host: str = "Host: x") -> bytes:
    kept = [line for line in (start, host, *lines) if line]
    return "\r\n".join([*kept, "", ""]).encode("latin-1")


@pytest.mark.parametrize("size_bytes", [1, 2, 5, 1000])
def test_a_head_is_read_in_pieces_of_any_size(size_bytes: int) -> None:
    data = request("X-Api-KEY:  k ", "Content-Length: 7", start="POST /v1/upscale?a=b HTTP/1.1")
    head = read(data, size_bytes)
    assert (head.method, head.target, head.version) == ("POST", b"/v1/upscale?a=b", "1.1")
    assert head.headers == [(b"host", b"x"), (b"x-api-key", b"k"), (b"content-length", b"7")]
    assert (head.body_bytes, head.keeps_alive, head.expects_continue) == (7, True, False)


def test_bytes_behind_a_head_are_not_consumed() -> None:
    reader, head = HeadReader(), request()
    assert reader.feed(head + b"GET", 0) == len(head)


@pytest.mark.parametrize(
    ("lines", "start", "expected"),
    [
        ((), "GET / HTTP/1.1", True),
        (("Connection: close",), "GET / HTTP/1.1", False),
        (("Connection: te, Close",), "GET / HTTP/1.1", False),
        (("Connection: te", "Connection: close"), "GET / HTTP/1.1", False),
        (("Connection: closed",), "GET / HTTP/1.1", True),
        (("Connection: keep-alive",), "GET / HTTP/1.0", False),
    ],
)
def test_keep_alive_follows_version_and_connection_header(
    lines: tuple[str, ...], start: str, expected: bool
) -> None:
    assert read(request(*lines, start=start)).keeps_alive is expected


@pytest.mark.parametrize(
    ("lines", "body_bytes"),
    [
        ((), 0),
        (("Content-Length: 0",), 0),
        (("Content-Length: 007",), 7),
        (("Content-Length: 99999999999999999999999",), 99999999999999999999999),
        (("Transfer-Encoding: chunked",), None),
        (("TRANSFER-ENCODING:\tChunked \t",), None),
    ],
)
def test_the_end_of_a_body_is_known_from_its_head(
    lines: tuple[str, ...], body_bytes: int | None
) -> None:
    assert read(request(*lines)).body_bytes == body_bytes


AMBIGUOUS = {
    "two lengths": ("Content-Length: 1", "Content-Length: 2"),
    "one length twice": ("Content-Length: 1", "Content-Length: 1"),
    "a list of lengths": ("Content-Length: 1, 1",),
    "a signed length": ("Content-Length: +1",),
    "a negative length": ("Content-Length: -1",),
    "a hexadecimal length": ("Content-Length: 0x1",),
    "an empty length": ("Content-Length:",),
    "a length of 41 digits": ("Content-Length: " + "0" * 41,),
    "full-width digits": ("Content-Length: \xef\xbc\x91",),
    "length and chunks": ("Content-Length: 1", "Transfer-Encoding: chunked"),
    "chunks and length": ("Transfer-Encoding: chunked", "Content-Length: 1"),
    "gzip, chunked": ("Transfer-Encoding: gzip, chunked",),
    "chunked, gzip": ("Transfer-Encoding: chunked, gzip",),
    "chunked twice": ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked, chunked": ("Transfer-Encoding: chunked, chunked",),
    "identity": ("Transfer-Encoding: identity",),
    "no coding": ("Transfer-Encoding:",),
    "a quoted coding": ('Transfer-Encoding: "chunked"',),
    "a coding behind a vertical tab": ("Transfer-Encoding: \x0bchunked",),
    "white space before the colon": ("Content-Length : 1",),
    "a tab before the colon": ("Transfer-Encoding\t: chunked",),
    "a folded line": ("A: b", " c"),
    "a line folded by a tab": ("A: b", "\tc"),
    "a folded first line": (" A: b",),
    "no colon": ("nonsense",),
    "no name": (": b",),
    "a name of two words": ("A b: c",),
    "a name with an umlaut": ("\xc4: c",),
    "a second Host": ("Host: y",),
    "the same Host again": ("host: x",),
    "CR in a value": ("A: b\rC: d",),
    "LF in a value": ("A: b\nC: d",),
    "NUL in a value": ("A: \x00",),
    "DEL in a value": ("A: \x7f",),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
@pytest.mark.parametrize("size_bytes", [1, 1 << 20])
def test_an_ambiguous_head_is_refused(what: str, size_bytes: int) -> None:
    with pytest.raises(MalformedRequest):
        read(request(*AMBIGUOUS[what]), size_bytes)


@pytest.mark.parametrize(
    "start",
    [
        *("GET /", "GET", "GET  / HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.1 ", "get"),
        *("GET / HTTP/0.9", "GET / HTTP/1.2", "GET / HTTP/2.0", "GET / http/1.1", "GET / HTTP/1"),
        *("GET x HTTP/1.1", "GET /a b HTTP/1.1", "GET /#a HTTP/1.1", "GET /\x01 HTTP/1.1"),
        *("G(T / HTTP/1.1", "G\xe9T / HTTP/1.1", "X" * 33 + " / HTTP/1.1", "GET\t/\tHTTP/1.1"),
        *("CONNECT x:443 HTTP/1.1", "CONNECT / HTTP/1.1", "PRI * HTTP/2.0"),
        *("GET http:/// HTTP/1.1", "GET http://a@b/ HTTP/1.1", "GET ftp://a/ HTTP/1.1"),
    ],
)
def test_a_malformed_request_line_is_refused(start: str) -> None:
    with pytest.raises(MalformedRequest):
        read(request(start=start))


@pytest.mark.parametrize("start", ["GET /healthz", "GET / HTTP/7.3"])
def test_a_bad_request_line_is_refused_before_the_rest_is_received(start: str) -> None:
    with pytest.raises(MalformedRequest):
        HeadReader().feed(start.encode() + b"\r\n")


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("", "GET / HTTP/1.1"),
        ("", "GET http://a/ HTTP/1.1"),
        ("Host: a\r\nHost: b", "GET / HTTP/1.0"),
    ],
)
def test_http_1_1_has_one_host_and_http_1_0_at_most_one(host: str, start: str) -> None:
    with pytest.raises(MalformedRequest):
        read(request(start=start, host=host))


def test_http_1_0_needs_no_host() -> None:
    assert read(request(start="GET / HTTP/1.0", host="")).headers == []


@pytest.mark.parametrize(
    "host", ["x", "", "a.b-c_d.example:8000", "127.0.0.1:1", "[::1]:80", "[2001:db8::1]", "%41.x"]
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert read(request(host=f"Host: {host}")).headers == [(b"host", host.encode())]


@pytest.mark.parametrize("host", ["a b", "a/b", "a@b", "a, b", "::1", "[::1", "a:b", 'a"', "\xe9"])
def test_a_malformed_host_is_refused(host: str) -> None:
    with pytest.raises(MalformedRequest):
        read(request(host=f"Host: {host}"))


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://other:81/a?b", b"/a?b"), ("HTTPS://other:81", b"/"), ("http://other:81?b", b"/?b")],
)
def test_the_host_of_an_absolute_target_replaces_the_header(target: str, path: bytes) -> None:
    """RFC 9112, section 3.2.2."""
    head = read(request("A: b", start=f"GET {target} HTTP/1.1"))
    assert (head.target, head.headers) == (path, [(b"host", b"other:81"), (b"a", b"b")])


def test_a_few_empty_lines_before_a_request_are_passed_over() -> None:
    assert read(b"\r\n" * MAX_EMPTY_LINES + request()).target == b"/"
    with pytest.raises(MalformedRequest):
        read(b"\r\n" * (MAX_EMPTY_LINES + 1) + request())


def test_options_of_an_asterisk_target_is_accepted() -> None:
    assert read(request(start="OPTIONS * HTTP/1.1")).target == b"*"


@pytest.mark.parametrize("size_bytes", [1000, 1 << 20])
def test_a_head_at_each_limit_is_accepted_and_one_more_is_refused(size_bytes: int) -> None:
    def line(length: int) -> str:
        return "/" + "x" * (length - len("GET / HTTP/1.1\r\n")) + " HTTP/1.1"

    rest_bytes = len(request("X: "))
    for good, bad in (
        (
            request("X: " + "y" * (MAX_HEAD_BYTES - rest_bytes)),
            request("X: " + "y" * (MAX_HEAD_BYTES - rest_bytes + 1)),
        ),
        (
            request(start="GET " + line(MAX_REQUEST_LINE_BYTES)),
            request(start="GET " + line(MAX_REQUEST_LINE_BYTES + 1)),
        ),
        (request(*["A: b"] * (MAX_HEADERS - 1)), request(*["A: b"] * MAX_HEADERS)),
        (request("Content-Length: " + "9" * 40), request("Content-Length: " + "9" * 41)),
        (request(start="X" * 32 + " / HTTP/1.1"), request(start="X" * 33 + " / HTTP/1.1")),
    ):
        read(good, size_bytes)
        with pytest.raises(MalformedRequest):
            read(bad, size_bytes)


@pytest.mark.parametrize("size_bytes", [1, 1 << 20])
def test_twice_the_head_costs_twice_the_work(size_bytes: int) -> None:
    def cost(fields: int) -> int:
        data = request(*["A: " + "b" * 20] * fields)
        return count_calls(lambda: read(data, size_bytes))

    assert cost(200) < 2.1 * cost(100)


TEXT = st.text(
    st.sampled_from("GETPOS /:.,;aH1\r\n\t -TP0chunkedlost?%[]@#\x00\x7f\xe9"), max_size=40
)


@given(st.sampled_from(["", "Content-Length: ", "Transfer-Encoding: ", "Host: ", "A"]), TEXT)
def test_accepted_heads_are_read_alike_by_llhttp(name: str, text: str) -> None:
    data = request(name + text)
    reader = HeadReader()
    try:
        reader.feed(data)
    except MalformedRequest:
        return
    assert reader.head is not None
    seen: list[tuple[bytes, bytes]] = []

    class Seen:
        def on_header(self, name: bytes, value: bytes) -> None:
            seen.append((name.lower(), value.strip(b" \t")))

    parser = httptools.HttpRequestParser(Seen())
    parser.feed_data(data[: reader.size_bytes])
    assert seen == reader.head.headers
    assert parser.get_http_version() == reader.head.version


def take_all(data: bytes, size_bytes: int) -> list[bytes]:
    """All lines of `data`, given in pieces of a size."""
    reader, lines = LineReader(), []
    for at in range(0, len(data), size_bytes):
        piece, start = data[at : at + size_bytes], 0
        while start < len(piece):
            line, start = reader.feed(piece, start, 1000)
            if line is not None:
                lines.append(line)
    return lines


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 7, 100])
def test_lines_are_the_same_in_pieces_of_any_size(size_bytes: int) -> None:
    assert take_all(b"one\r\n\r\nthree\t\xff\r\n", size_bytes) == [b"one", b"", b"three\t\xff"]


@pytest.mark.parametrize("size_bytes", [1, 4, 100])
@pytest.mark.parametrize(
    "data", [b"a\n", b"\n", b"a\rb\r\n", b"a\x00", b"a\x0b", b"\x7f", b"\x16\x03", b"a\x1b[0m\r\n"]
)
def test_a_line_that_two_programs_could_read_in_two_ways_is_refused(
    data: bytes, size_bytes: int
) -> None:
    with pytest.raises(MalformedRequest):
        take_all(data, size_bytes)


@pytest.mark.parametrize("size_bytes", [1, 3, 100])
def test_a_line_of_the_limit_passes_and_a_longer_one_does_not(size_bytes: int) -> None:
    assert take_all(b"x" * 998 + b"\r\n", size_bytes) == [b"x" * 998]
    with pytest.raises(MalformedRequest):
        take_all(b"x" * 999 + b"\r\n", size_bytes)
    with pytest.raises(MalformedRequest):
        take_all(b"x" * 1000, size_bytes)


def test_a_long_line_byte_by_byte_costs_twice_as_much_where_it_is_twice_as_long() -> None:
    def cost(length: int) -> int:
        reader = LineReader()
        pieces = [b"x"] * length

        def work() -> None:
            for piece in pieces:
                reader.feed(piece, 0, 1_000_000)

        return count_calls(work)

    assert cost(4000) < 2.1 * cost(2000)


def test_no_byte_is_searched_or_copied_twice() -> None:
    data = SeenBytes(b"a" * 50 + b"\r\n" + b"b" * 70 + b"\r\n" + b"c" * 30)
    reader, start = LineReader(), 0
    while start < len(data):
        _, start = reader.feed(data, start, 1000)
    assert (data.searched, data.copied) == (len(data), len(data))
