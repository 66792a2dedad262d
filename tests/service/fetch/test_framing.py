import pytest

from tests.counting import assert_linear, count_steps
from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.framing import BODY_BYTES_PER_FRAMING_BYTE, FREE_FRAMING_BYTES, choose_framing
from upscaled.fetch.head import parse_head
from upscaled.fetch.url import UnusableUrl

LIMIT_BYTES = 10_000_000
DATA = b"0123456789"
CHUNKED = "Transfer-Encoding: chunked"


def read(lines: str, *pieces: bytes, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """The body of an answer with these header lines, sent in these pieces and then closed."""
    head = parse_head(f"HTTP/1.1 200 OK\r\n{lines}\r\n\r\n".encode())
    framing = choose_framing(head, limit_bytes)
    body = b""
    for piece in pieces:
        body += b"".join(framing.feed(piece))
        if framing.is_complete:
            return body
    framing.finish()
    return body


# What curl 7.88 makes of each, measured with the same bytes.
TAKEN = {
    "a length": ("Content-Length: 10", DATA),
    "bytes behind the length": ("Content-Length: 10", DATA + b"more"),
    "one length twice": ("Content-Length: 10\r\nContent-Length: 10", DATA),
    "one length in a list": ("Content-Length: 10, 10", DATA),
    "two lengths: the last line counts": ("Content-Length: 5\r\nContent-Length: 10", DATA),
    "a length with a plus": ("Content-Length: +10", DATA),
    "a length with leading zeros": ("Content-Length: 00000000000000000000000000010", DATA),
    "a length with something behind": ("Content-Length: 10x", DATA),
    "no length": ("X: y", DATA),
    "chunked and a length": (f"Content-Length: 5\r\n{CHUNKED}", b"a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "a length and chunked": (f"{CHUNKED}\r\nContent-Length: 5", b"a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "chunked twice": (f"{CHUNKED}\r\n{CHUNKED}", b"a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "chunked in capitals": ("transfer-encoding: CHUNKED", b"A\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "identity and a length": ("Transfer-Encoding: identity\r\nContent-Length: 5", DATA),
    "bare line feeds": (CHUNKED, b"a\n" + DATA + b"\n0\n\n"),
    "an extension": (CHUNKED, b'a;name="value"\r\n' + DATA + b"\r\n0;x\r\n\r\n"),
    "words behind the size": (CHUNKED, b"a words\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "a trailer": (CHUNKED, b"a\r\n" + DATA + b"\r\n0\r\nX: y\r\nZ: 1\r\n\r\n"),
    "bytes behind the last chunk": (CHUNKED, b"a\r\n" + DATA + b"\r\n0\r\n\r\nmore"),
    "16 digits": (CHUNKED, b"000000000000000a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "several chunks": (CHUNKED, b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"),
}
REFUSED = {
    "a body cut short": ("Content-Length: 11", DATA),
    "two lengths, the last too long": ("Content-Length: 10\r\nContent-Length: 11", DATA),
    "an empty length": ("Content-Length:", DATA),
    "a negative length": ("Content-Length: -1", DATA),
    "words for a length": ("Content-Length: ten", DATA),
    "chunks without a last one": (CHUNKED, b"a\r\n" + DATA + b"\r\n"),
    "a chunk cut short": (CHUNKED, b"b\r\n" + DATA),
    "no line behind the last chunk": (CHUNKED, b"a\r\n" + DATA + b"\r\n0\r\n"),
    "a trailer cut short": (CHUNKED, b"a\r\n" + DATA + b"\r\n0\r\nX: y\r\n"),
    "a chunk longer than its size": (CHUNKED, b"a\r\n" + DATA + b"x\r\n0\r\n\r\n"),
    "no line end behind a chunk": (CHUNKED, b"a\r\n" + DATA + b"0\r\n\r\n"),
    "white space before a size": (CHUNKED, b" a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "a size in C": (CHUNKED, b"0xa\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "no size": (CHUNKED, b"\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "a negative size": (CHUNKED, b"-a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "17 digits": (CHUNKED, b"0000000000000000a\r\n" + DATA + b"\r\n0\r\n\r\n"),
    "no chunks at all": (CHUNKED, DATA),
    "nothing": (CHUNKED, b""),
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("piece_bytes", [1, 3, 10**6])
def test_a_body_that_curl_reads_is_read(name: str, piece_bytes: int) -> None:
    lines, wire = TAKEN[name]
    pieces = (wire[at : at + piece_bytes] for at in range(0, len(wire), piece_bytes))
    assert read(lines, *pieces) == DATA


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("piece_bytes", [1, 10**6])
def test_a_body_that_is_cut_or_ambiguous_is_refused(name: str, piece_bytes: int) -> None:
    lines, wire = REFUSED[name]
    pieces = (wire[at : at + piece_bytes] for at in range(0, len(wire), piece_bytes))
    with pytest.raises(UnusableUrl):
        read(lines, *pieces)


@pytest.mark.parametrize(
    "wire", [b"5\r\n01234\r\n5;x\r\n56789\r\n0\r\nX: y\r\n\r\n", b"a\n" + DATA + b"\n0\n\n"]
)
def test_a_truncated_chunked_body_is_refused(wire: bytes) -> None:
    assert read(CHUNKED, wire) == DATA
    for end in range(len(wire)):
        with pytest.raises(UnusableUrl):
            read(CHUNKED, wire[:end])


def test_a_truncated_body_of_a_length_is_refused() -> None:
    for end in range(len(DATA)):
        with pytest.raises(UnusableUrl):
            read("Content-Length: 10", DATA[:end])


@pytest.mark.parametrize("length", ["11", "99999999999", "9" * 400, "9" * 10_000])
def test_a_length_over_the_limit_is_refused_unread(length: str) -> None:
    assert read("Content-Length: 10", DATA, limit_bytes=10) == DATA
    with pytest.raises(FileSizeTooLarge):
        read(f"Content-Length: {length}", limit_bytes=10)


def test_chunks_over_the_limit_are_refused_unread() -> None:
    wire = b"6\r\n012345\r\n4\r\n6789\r\n0\r\n\r\n"
    assert read(CHUNKED, wire, limit_bytes=10) == DATA
    for too_large in (b"6\r\n012345\r\n5\r\n", b"ffffffffffffffff\r\n", b"b\r\n"):
        with pytest.raises(FileSizeTooLarge):
            read(CHUNKED, too_large, limit_bytes=10)


@pytest.mark.parametrize(
    ("start", "unit"),
    [
        (b"5;x=", b"y"),
        (b"0\r\nX: ", b"y"),
        (b"0\r\n", b"a:\r\n"),
        (b"5", b" "),
        (b"5\r\n01234\r\n5;", b"y"),
    ],
)
def test_endless_framing_is_read_no_further_than_its_limit(start: bytes, unit: bytes) -> None:
    read: list[int] = []
    framing = choose_framing(
        parse_head(b"HTTP/1.1 200 OK\r\n" + CHUNKED.encode() + b"\r\n\r\n"), 10
    )

    def read_on() -> None:
        for piece in (start, *[unit * 1000] * 1000):
            read.append(len(piece))
            list(framing.feed(piece))

    with pytest.raises(UnusableUrl):
        read_on()
    assert FREE_FRAMING_BYTES <= sum(read) <= FREE_FRAMING_BYTES + 10_000


@pytest.mark.parametrize("digit", [b"0", b"a"])
def test_digits_of_a_size_without_end_are_refused(digit: bytes) -> None:
    with pytest.raises(UnusableUrl):
        read(CHUNKED, *[digit * 1000] * (FREE_FRAMING_BYTES // 1000 + 1))


def test_chunks_of_a_byte_pass_in_thousands_but_not_in_millions() -> None:
    assert len(read(CHUNKED, b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n")) == 10_000
    with pytest.raises(UnusableUrl):
        read(CHUNKED, b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")


def test_framing_may_grow_with_the_body() -> None:
    """Chunks of 64 bytes, each with 6 bytes of framing, for as long as a body lasts."""
    chunk = b"40\r\n" + b"x" * 64 + b"\r\n"
    assert 6 * BODY_BYTES_PER_FRAMING_BYTE < 64
    count = 2 * FREE_FRAMING_BYTES // 6
    assert len(read(CHUNKED, chunk * count + b"0\r\n\r\n")) == count * 64


@pytest.mark.parametrize(
    "unit", [b"1\r\na\r\n", b"1;x=y\r\na\r\n", b"10\r\n" + b"x" * 16 + b"\r\n"]
)
@pytest.mark.parametrize("piece_bytes", [1, 16 * 1024])
def test_twice_the_chunks_are_twice_the_work(unit: bytes, piece_bytes: int) -> None:
    def work(wire: bytes) -> None:
        read(CHUNKED, *(wire[at : at + piece_bytes] for at in range(0, len(wire), piece_bytes)))

    assert_linear(work, lambda n: unit * n + b"0\r\n\r\n", 400)


def test_a_line_in_many_pieces_is_scanned_once() -> None:
    def work(extension: bytes) -> None:
        pieces = (extension[at : at + 1] for at in range(len(extension)))
        read(CHUNKED, b"1;", *pieces, b"\r\na\r\n0\r\n\r\n")

    assert_linear(work, lambda n: b"x" * n, 2000)


def test_a_caller_that_stops_between_two_pieces_causes_no_further_work() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\n" + CHUNKED.encode() + b"\r\n\r\n")
    framing = choose_framing(head, LIMIT_BYTES)
    pieces = framing.feed(b"1\r\na\r\n" * 2000)
    few = count_steps(lambda: [next(pieces) for _ in range(10)])
    rest = count_steps(lambda: list(pieces))
    assert few * 100 < rest
