import pytest

from tests.service.image.jpeg_samples import photograph
from tests.service.image.samples import save
from upscaled.image.formats.webp.structure import read_first_image
from upscaled.image.formats.webp.vp8 import read_quantiser

TAG = bytes(10)
"""End of a frame's size and start code: the quantisers lie behind it."""


def coded(bits: list[tuple[int, int]]) -> memoryview:
    """Make a frame whose header has these numbers, each with its count of bits (RFC 6386, 7.3)."""
    out, low, span, shift = bytearray(), 0, 255, 24
    for number, count in [*bits, (0, 32)]:
        for at in reversed(range(count)):
            split = 1 + ((span - 1) * 128 >> 8)
            if number >> at & 1:
                low, span = low + split, span - split
            else:
                span = split
            while span < 128:
                span <<= 1
                if low & 1 << 31:
                    carry = len(out) - 1
                    while out[carry] == 255:
                        out[carry] = 0
                        carry -= 1
                    out[carry] += 1
                low = low << 1 & 0xFFFFFFFF
                shift -= 1
                if not shift:
                    out.append(low >> 24)
                    low &= 0xFFFFFF
                    shift = 8
    return memoryview(TAG + bytes(out))


COLOUR = [(0, 2)]
REST = [(0, 10), (0, 1), (0, 2)]
"""Filter, no changes of it, one partition."""


def quantisers(*levels: int | None) -> list[tuple[int, int]]:
    """Code a flag for each quantiser, its size and its sign; then no filter levels."""
    listed: list[tuple[int, int]] = []
    for level in levels:
        listed += [(0, 1)] if level is None else [(1, 1), (abs(level), 7), (int(level < 0), 1)]
    return listed + [(0, 1)] * 4


def test_a_frame_without_segments_has_its_own_quantiser() -> None:
    for index in (0, 1, 64, 127):
        assert read_quantiser(coded([*COLOUR, (0, 1), *REST, (index, 7)])) == index


def test_absolute_quantisers_of_segments_count_in_place_of_the_frames() -> None:
    segments = [(1, 1), (0, 1), (1, 1), (1, 1), *quantisers(10, 20, None, 50)]
    assert read_quantiser(coded([*COLOUR, *segments, *REST, (99, 7)])) == 20


def test_relative_quantisers_of_segments_are_added_to_the_frames() -> None:
    """The sums stay within 0 and 127."""
    segments = [(1, 1), (0, 1), (1, 1), (0, 1), *quantisers(-5, None, 5, 90)]
    assert read_quantiser(coded([*COLOUR, *segments, *REST, (60, 7)])) == (55 + 60 + 65 + 127) / 4


def test_segments_that_leave_the_quantisers_have_the_frames() -> None:
    segments = [(1, 1), (1, 1), (0, 1), *[(1, 1), (128, 8)] * 3]
    assert read_quantiser(coded([*COLOUR, *segments, *REST, (33, 7)])) == 33


def test_a_higher_quality_of_libwebp_has_a_finer_quantiser() -> None:
    found = []
    for quality in range(0, 101, 10):
        source = save(photograph(), "WEBP", quality=quality)
        found.append(read_quantiser(read_first_image(source).bitstream))
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (127, 0)


@pytest.mark.parametrize("count", [0, 5, 10, 11])
def test_a_frame_that_is_cut_short_is_refused(count: int) -> None:
    whole = coded([*COLOUR, (0, 1), *REST, (60, 7)])
    with pytest.raises(IndexError):
        read_quantiser(whole[:count])
    assert read_quantiser(whole) == 60
