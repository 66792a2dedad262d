"""Where the partitions of a VP8 key frame end, which code the rows of blocks in turns (RFC 6386).

How many there are stands in the frame's own header, behind what may be left out: it is read with
the format's arithmetic decoder, of which a header needs even chances only.
"""

from typing import Final

# RFC 6386, 9.1: three bytes of tag, which hold the first partition's size, and seven more.
_HEADER_BYTES: Final = 10
_FIRST_SIZE_SHIFT: Final = 5
_SIZE_BYTES: Final = 3
_EVEN: Final = 128
_SEGMENTS: Final = 4


class _BoolDecoder:
    """RFC 6386, 7.3, for numbers whose bits have even chances.

    Raises:
        IndexError: the data end.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 2
        self._value = data[0] << 8 | data[1]
        self._range = 255
        self._shifted = 0

    def read(self, bits: int) -> int:
        """An unsigned number, its highest bit first."""
        number = 0
        for _ in range(bits):
            number = number << 1 | self._read_bit()
        return number

    def read_optional(self, bits: int) -> None:
        """Over a number with a flag before that says whether it is there."""
        if self.read(1):
            self.read(bits)

    def _read_bit(self) -> int:
        split = 1 + ((self._range - 1) * _EVEN >> 8)
        bit = int(self._value >= split << 8)
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifted += 1
            if self._shifted == 8:
                self._shifted = 0
                self._value |= self._data[self._at]
                self._at += 1
        return bit


def find_partitions(frame: memoryview) -> tuple[int, list[memoryview]]:
    """Where the sizes of the coefficients' partitions stand, and the partitions.

    The last has no size: it goes to the end.

    Raises:
        IndexError, ValueError: the frame is cut short.
    """
    first_bytes = int.from_bytes(frame[:_SIZE_BYTES], "little") >> _FIRST_SIZE_SHIFT
    count = _count_partitions(frame[_HEADER_BYTES : _HEADER_BYTES + first_bytes])
    sizes_at = _HEADER_BYTES + first_bytes
    at = sizes_at + _SIZE_BYTES * (count - 1)
    if at > len(frame):
        raise ValueError("a frame without its partitions")
    partitions = []
    for number in range(count - 1):
        size_at = sizes_at + _SIZE_BYTES * number
        size = int.from_bytes(frame[size_at : size_at + _SIZE_BYTES], "little")
        partitions.append(frame[at : at + size])
        at += size
    return sizes_at, [*partitions, frame[at:]]


def join_partitions(frame: memoryview, sizes_at: int, partitions: list[memoryview]) -> bytes:
    """The frame with other data in its partitions."""
    sizes = (len(each).to_bytes(_SIZE_BYTES, "little") for each in partitions[:-1])
    return b"".join((frame[:sizes_at], *sizes, *partitions))


def _count_partitions(first: memoryview) -> int:
    """RFC 6386, 9.2 to 9.5 and 19.2: 1, 2, 4 or 8."""
    header = _BoolDecoder(first)
    header.read(1 + 1)  # colour space, clamping
    if header.read(1):
        _skip_segments(header)
    header.read(1 + 6 + 3)  # the filter's kind, level and sharpness
    if header.read(1) and header.read(1):
        for _ in range(4 + 4):  # changes of the filter's level
            header.read_optional(6 + 1)
    return 1 << header.read(2)


def _skip_segments(header: _BoolDecoder) -> None:
    has_map, has_data = header.read(1), header.read(1)
    if has_data:
        header.read(1)
        for bits in (7 + 1, 6 + 1):  # quantiser, filter level: with a sign each
            for _ in range(_SEGMENTS):
                header.read_optional(bits)
    if has_map:
        for _ in range(_SEGMENTS - 1):
            header.read_optional(8)
