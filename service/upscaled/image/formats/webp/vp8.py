"""Read the header of a VP8 key frame: its partitions and its quantisers (RFC 6386).

Partitions code the rows of blocks in turns. How many there are, and how coarsely blocks are
quantised, stands in the frame's own header, behind what may be left out: it is read with the
format's arithmetic decoder, of which a header needs even chances only.
"""

from typing import Final

# RFC 6386, 9.1: three bytes of tag, which hold the first partition's size, and seven more.
_HEADER_BYTES: Final = 10
_FIRST_SIZE_SHIFT: Final = 5
_SIZE_BYTES: Final = 3
_EVEN: Final = 128
_SEGMENTS: Final = 4


class _BoolDecoder:
    """Decodes numbers whose bits have even chances (RFC 6386, 7.3)."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 2
        self._value = data[0] << 8 | data[1]
        self._range = 255
        self._shifted = 0

    def read(self, bits: int) -> int:
        """Read an unsigned number, its highest bit first."""
        number = 0
        for _ in range(bits):
            number = number << 1 | self._read_bit()
        return number

    def read_optional(self, bits: int) -> int:
        """Read a number behind a flag that says whether it is there, its sign last; 0 without."""
        if not self.read(1):
            return 0
        size = self.read(bits)
        return -size if self.read(1) else size

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
    """Find the position of the sizes of the coefficients' partitions, and the partitions.

    The last has no size: it goes to the end.
    """
    first_bytes = int.from_bytes(frame[:_SIZE_BYTES], "little") >> _FIRST_SIZE_SHIFT
    sizes_at = _HEADER_BYTES + first_bytes
    header = _BoolDecoder(frame[_HEADER_BYTES:sizes_at])
    _read_to_partitions(header)
    count = 1 << header.read(2)  # 9.5
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
    """Make the frame with other data in its partitions."""
    sizes = (len(each).to_bytes(_SIZE_BYTES, "little") for each in partitions[:-1])
    return b"".join((frame[:sizes_at], *sizes, *partitions))


def read_quantiser(frame: memoryview) -> float:
    """Read the index of the luma AC quantiser, 0 (finest) to 127, averaged over segments.

    A frame has up to four segments of blocks, each quantised in its own way.
    """
    header = _BoolDecoder(frame[_HEADER_BYTES:])
    is_absolute, levels = _read_to_partitions(header)
    header.read(2)
    base = header.read(7)
    segments = [level if is_absolute else base + level for level in levels] or [base]
    return sum(min(127, max(0, level)) for level in segments) / len(segments)


def _read_to_partitions(header: _BoolDecoder) -> tuple[bool, list[int]]:
    """Read the segments' quantisers and whether they are absolute (RFC 6386, 9.2 to 9.5, 19.2).

    None of them where a frame has no segments, or leaves their quantisers as they are.
    """
    is_absolute, levels = False, list[int]()
    header.read(1 + 1)  # colour space, clamping
    if header.read(1):
        is_absolute, levels = _read_segments(header)
    header.read(1 + 6 + 3)  # the filter's kind, level and sharpness
    if header.read(1) and header.read(1):
        for _ in range(4 + 4):  # changes of the filter's level
            header.read_optional(6)
    return is_absolute, levels


def _read_segments(header: _BoolDecoder) -> tuple[bool, list[int]]:
    has_map, has_data = header.read(1), header.read(1)
    is_absolute, levels = False, list[int]()
    if has_data:
        is_absolute = bool(header.read(1))
        levels = [header.read_optional(7) for _ in range(_SEGMENTS)]
        for _ in range(_SEGMENTS):
            header.read_optional(6)  # the filter's level
    if has_map:
        for _ in range(_SEGMENTS - 1):
            if header.read(1):
                header.read(8)
    return is_absolute, levels
