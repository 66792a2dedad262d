import pytest

from tests.service.api.wire.counting import SeenBytes, count_calls
from upscaled.api.wire.lines import LineReader, MalformedRequest


def take_all(data: bytes, size_bytes: int) -> list[bytes]:
    """All lines of `data`, given in pieces of a size."""
    reader, lines = LineReader(), []
    for at in range(0, len(data), size_bytes):
        piece, start = data[at : at + size_bytes], 0
        while start < len(piece):
            line, start = reader.take(piece, start, 1000)
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
                reader.take(piece, 0, 1_000_000)

        return count_calls(work)

    assert cost(4000) < 2.1 * cost(2000)


def test_no_byte_is_searched_or_copied_twice() -> None:
    data = SeenBytes(b"a" * 50 + b"\r\n" + b"b" * 70 + b"\r\n" + b"c" * 30)
    reader, start = LineReader(), 0
    while start < len(data):
        _, start = reader.take(data, start, 1000)
    assert (data.searched, data.copied) == (len(data), len(data))
