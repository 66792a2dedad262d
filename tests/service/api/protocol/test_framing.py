import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.api.counting import count_calls
from upscaled.api.protocol.framing import (
    MAX_CHUNK_LINE_BYTES,
    MAX_FRAMING_BYTES,
    MAX_LINES_PER_FEED,
    MAX_TRAILER_BYTES,
    BodyReader,
    ChunkedReader,
    LengthReader,
)
from upscaled.api.protocol.head import MalformedRequest


def read(reader: BodyReader, data: bytes, size_bytes: int = 1 << 20) -> tuple[bytes, int]:
    """The body, and how many bytes of `data`, given in pieces of a size, belong to it."""
    body, taken = bytearray(), 0
    for at in range(0, len(data), size_bytes):
        piece, start = data[at : at + size_bytes], 0
        while start < len(piece) and not reader.is_complete:
            start = reader.feed(piece, start, body)
        taken += start
    return bytes(body), taken


def chunks(*bodies: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(body), extension, body) for body in bodies]
    return b"".join([*parts, b"0", extension, b"\r\n", trailer, b"\r\n"])


@pytest.mark.parametrize("size_bytes", [1, 3, 1000])
def test_a_body_ends_with_its_length(size_bytes: int) -> None:
    reader = LengthReader(5)
    assert read(reader, b"helloGET", size_bytes) == (b"hello", 5)
    assert reader.is_complete
    assert LengthReader(0).is_complete


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("extension", [b"", b";a=b", b" ; a", b";" + b"x" * 4000])
@pytest.mark.parametrize("trailer", [b"", b"A: b\r\nC: d\r\n"])
def test_chunks_are_joined_and_nothing_else(
    size_bytes: int, extension: bytes, trailer: bytes
) -> None:
    reader = ChunkedReader()
    data = chunks(b"hello ", b"world\r\n", extension=extension, trailer=trailer)
    assert read(reader, data + b"GET", size_bytes) == (b"hello world\r\n", len(data))
    assert reader.is_complete


BROKEN = {
    "letters": b"zz\r\n",
    "an empty size": b"\r\n",
    "0x": b"0x5\r\n",
    "a sign": b"+5\r\n",
    "a space before": b" 5\r\nhello",
    "a space behind": b"5 \r\nhello",
    "17 digits": b"0" * 16 + b"5\r\n",
    "LF alone": b"5\nhello",
    "more than announced": b"5\r\nhello!\r\n",
    "LF alone behind the data": b"5\r\nhello\n0\r\n\r\n",
    "CR alone behind the data": b"5\r\nhello\r0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello",
    "LF in an extension": b"5;a\nb\r\nhello",
    "NUL in an extension": b"5;\0\r\nhello",
    "a trailer that is no field": b"0\r\nnonsense\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("size_bytes", [1, 1000])
def test_broken_chunks_are_refused(what: str, size_bytes: int) -> None:
    with pytest.raises(MalformedRequest):
        read(ChunkedReader(), BROKEN[what], size_bytes)


@pytest.mark.parametrize("size_bytes", [1000, 1 << 20])
def test_chunks_at_each_limit_are_accepted_and_longer_ones_are_refused(size_bytes: int) -> None:
    longest = MAX_CHUNK_LINE_BYTES - len(b"5;\r\n")
    trailers = MAX_TRAILER_BYTES // 64 - 1
    field = b"A: " + b"b" * 59 + b"\r\n"
    last = b"A: " + b"b" * 57 + b"\r\n"  # with the empty line behind it
    ones = MAX_FRAMING_BYTES * 16 // 79 - 1  # each byte: 5 of framing, a sixteenth of one is free
    for good, bad in (
        (chunks(b"hello", extension=b";" + b"x" * longest), None),
        (None, chunks(b"hello", extension=b";" + b"x" * (longest + 1))),
        (chunks(b"a", trailer=field * trailers + last), chunks(trailer=field * (trailers + 1))),
        (chunks(*[b"x"] * ones), chunks(*[b"x"] * (ones + 2))),
    ):
        if good is not None:
            reader = ChunkedReader()
            read(reader, good, size_bytes)
            assert reader.is_complete
        if bad is not None:
            with pytest.raises(MalformedRequest):
                read(ChunkedReader(), bad, size_bytes)


@pytest.mark.parametrize(
    ("begun", "repeated"),
    [
        (b"0\r\nX: ", b"a"),
        (b"0\r\n", b"A: b\r\n"),
        (b"5;", b"a"),
        (b"", b"5"),
        (b"", b"1;aaaaaaaaa\r\na\r\n"),
    ],
)
def test_endless_framing_is_refused_after_a_few_kilobytes(begun: bytes, repeated: bytes) -> None:
    reader, sent_bytes = ChunkedReader(), 0

    def send_for_ever() -> None:
        nonlocal sent_bytes
        read(reader, begun)
        while sent_bytes < 1_000_000:
            sent_bytes += len(repeated)
            read(reader, repeated)

    with pytest.raises(MalformedRequest):
        send_for_ever()
    assert sent_bytes < 2 * MAX_FRAMING_BYTES


def test_ten_thousand_tiny_chunks_pass_and_are_read_a_few_at_a_time() -> None:
    reader, body, start, feeds = ChunkedReader(), bytearray(), 0, 0
    data = chunks(*[b"x"] * 10_000)
    while not reader.is_complete:
        start = reader.feed(data, start, body)
        feeds += 1
    assert (len(body), start) == (10_000, len(data))
    assert feeds >= 10_000 // MAX_LINES_PER_FEED


@pytest.mark.parametrize(("size_bytes", "is_read"), [(100, True), (64, False)])
def test_framing_may_be_at_most_a_sixteenth_of_a_long_body(size_bytes: int, is_read: bool) -> None:
    data = chunks(*[b"x" * size_bytes] * 60_000)
    try:
        assert len(read(ChunkedReader(), data)[0]) == 60_000 * size_bytes
    except MalformedRequest:
        assert not is_read
    else:
        assert is_read


@pytest.mark.parametrize("size_bytes", [1, 100, 1 << 20])
def test_twice_the_chunks_cost_twice_the_work(size_bytes: int) -> None:
    def cost(count: int) -> int:
        data = chunks(*[b"x"] * count)
        return count_calls(lambda: read(ChunkedReader(), data, size_bytes))

    assert cost(2000) < 2.1 * cost(1000)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 60))
def test_any_body_in_any_pieces_is_the_same(bodies: list[bytes], size_bytes: int) -> None:
    data = chunks(*bodies)
    assert read(ChunkedReader(), data + b"more", size_bytes) == (b"".join(bodies), len(data))
