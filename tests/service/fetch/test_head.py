from typing import Any

import pytest

from tests.counting import assert_linear
from upscaled.fetch import head as head_module
from upscaled.fetch.head import (
    MAX_HEAD_BYTES,
    MAX_HEAD_LINES,
    MAX_INTERIM_HEADS,
    HeadParser,
    ResponseHead,
    parse_head,
)
from upscaled.fetch.url import UnusableUrl

OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 103 E\r\nLocation: /no\r\n\r\n"


def feed(*pieces: bytes) -> tuple[ResponseHead | None, bytes]:
    parser = HeadParser()
    found = None
    for piece in pieces:
        assert found is None
        found = parser.feed(piece)
    return found, parser.rest


@pytest.mark.parametrize(
    "line",
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 "),
        *(b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/2 200", b"HTTP/1.1 200 \xff\xe9"),
    ],
)
def test_a_status_line_that_curl_reads_is_read(line: bytes) -> None:
    assert parse_head(line + b"\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "head",
    [
        *(b"ICY 200 OK", b"HTTP/1.9 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1"),
        *(b"HTTP/1.1 20 OK", b"HTTP/1.1 abc", b"http/1.1 200 OK", b"\r\nHTTP/1.1 200 OK"),
        *(b"garbage", b"HTTP/1.1 -200 OK", b"HTTP/1.1 200 OK\r\nX: a\0b"),
    ],
)
def test_a_head_that_curl_refuses_is_refused(head: bytes) -> None:
    with pytest.raises(UnusableUrl):
        HeadParser().feed(head + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        *(b"Location: /a", b"location:/a", b"LOCATION : /a", b"Location\t:\t/a \t"),
        *(b"X-Bad Header: 1\r\nLocation: /a", b"garbage\r\nLocation: /a", b"Location:\r\n /a"),
        *(b"X: \x01\x7f\xff\r\nLocation: /a", b"X: a\r\n b\r\nLocation: /a"),
        b": x\r\nLocation: /a",
    ],
)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_odd_lines_hide_no_field(line: bytes, line_end: bytes) -> None:
    head = (OK + line + b"\r\n\r\n").replace(b"\r\n", line_end)
    found, rest = feed(head + b"body")
    assert found is not None
    assert (found.fields, rest) == ({"location": [b"/a"]}, b"body")


def test_a_folded_value_is_one_value() -> None:
    head = parse_head(OK + b"Location: /a\r\n \t b\r\n\tc\r\nX: y\r\n\r\n")
    assert head.last("location") == b"/a b c"


def test_lines_of_one_name_are_kept_in_order() -> None:
    head = parse_head(OK + b"Content-Encoding: GZIP, br\r\nContent-Encoding: , deflate\r\n\r\n")
    assert head.members("content-encoding") == ["gzip", "br", "deflate"]
    assert head.last("content-encoding") == b", deflate"
    assert (head.members("location"), head.last("location")) == ([], None)


def test_a_folded_line_is_no_field_of_its_own() -> None:
    assert parse_head(OK + b"X: a\r\n Location: /b\r\n\r\n").fields == {}


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1000])
def test_pieces_of_any_size_give_the_same_head(piece_bytes: int) -> None:
    whole = b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" + OK + b"Location: /a\r\n\r\n"
    pieces = [whole[at : at + piece_bytes] for at in range(0, len(whole), piece_bytes)]
    found, rest = feed(*pieces)
    assert found == ResponseHead(200, {"location": [b"/a"]})
    assert rest == b""


def test_interim_answers_are_passed_over_up_to_the_limit() -> None:
    found, rest = feed(INTERIM * MAX_INTERIM_HEADS + OK + b"\r\nbody")
    assert (found, rest) == (ResponseHead(200, {}), b"body")
    with pytest.raises(UnusableUrl):
        feed(INTERIM * (MAX_INTERIM_HEADS + 1))


def test_switched_protocols_are_no_interim_answer() -> None:
    found, _ = feed(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + b"\r\n")
    assert found is not None
    assert found.status == 101


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 102 P\r\n\r\n" * 20])
@pytest.mark.parametrize("piece_bytes", [16 * 1024, 10**6])
def test_a_head_of_the_limit_fits_and_a_byte_more_does_not(before: bytes, piece_bytes: int) -> None:
    """Interim heads count too: no number of them is a way round."""

    def head(size_bytes: int) -> list[bytes]:
        start, end = before + OK + b"X: ", b"\r\n\r\n"
        whole = start + b"y" * (size_bytes - len(start) - len(end)) + end
        assert len(whole) == size_bytes
        return [whole[at : at + piece_bytes] for at in range(0, size_bytes, piece_bytes)]

    assert feed(*head(MAX_HEAD_BYTES))[0] is not None
    with pytest.raises(UnusableUrl):
        feed(*head(MAX_HEAD_BYTES + 1))


def test_a_head_without_end_is_refused_at_the_limit() -> None:
    with pytest.raises(UnusableUrl):
        feed(OK + b"X: ", *[b"y" * 1000] * (MAX_HEAD_BYTES // 1000 + 1))


def test_a_head_of_many_lines_fits_and_a_line_more_does_not() -> None:
    lines = MAX_HEAD_LINES - 2
    assert feed(OK + b"X: y\r\n" * lines + b"\r\n")[0] is not None
    with pytest.raises(UnusableUrl):
        feed(OK + b"X: y\r\n" * (lines + 1) + b"\r\n")


def test_bytes_that_are_no_http_are_refused_before_they_end() -> None:
    parser = HeadParser()
    parser.feed(b"HT")
    with pytest.raises(UnusableUrl):
        parser.feed(b"ML")


@pytest.mark.parametrize("piece_bytes", [1, 10, 1000])
def test_each_byte_of_a_head_is_searched_once(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    searched = 0

    class Counting:
        def search(self, buffer: bytearray, at: int) -> Any:
            nonlocal searched
            searched += len(buffer) - at
            return pattern.search(buffer, at)

    pattern = head_module._HEAD_END
    monkeypatch.setattr(head_module, "_HEAD_END", Counting())
    head = OK + b"X: " + b"y" * 20_000 + b"\r\n\r\n"
    feed(*(head[at : at + piece_bytes] for at in range(0, len(head), piece_bytes)))
    assert searched <= len(head) * (1 + 2 / piece_bytes) + 2


@pytest.mark.parametrize(
    ("start", "unit", "count"),
    [
        *((OK, b"Set-Cookie: a=b\r\n", 500), (OK, b"X: y\r\n", 500), (OK, b"x\r\n", 500)),
        *((OK, b"Location: a\r\n b\r\n", 500), (b"", INTERIM, MAX_INTERIM_HEADS // 2)),
    ],
)
def test_twice_the_lines_or_interim_answers_are_at_most_twice_the_work(
    start: bytes, unit: bytes, count: int
) -> None:
    assert_linear(feed, lambda n: start + unit * n + b"\r\n" * (start == OK), count)
