"""Strips of a window: the rows of features that a network's tail computes at a time.

An RRDB network's tail works on 16 times the trunk's pixels: all of it at once would need most of
the network's memory, for a tenth of the arithmetic.
"""

from dataclasses import dataclass
from typing import Final

TAIL_RADIUS_PX: Final = 2
"""Reach of the tail, in trunk pixels: one convolution on twice their grid and three on four
times reach 1.25 of them."""

STRIP_PX: Final = 128 * 256
"""Trunk pixels that the tail computes at once. A layer of it holds 2 kB per trunk pixel in
bfloat16: 130 MB for its input and output, however large the window is, and twice that in float32.
With half as many, the tail of 451x300 took 7 % longer, for the rows that strips share."""

MIN_CORE_ROWS: Final = 8
"""Fewest kept rows of a strip in very wide windows: fewer rows are computed twice than kept."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of features from `start` on, whose results from `first` up to `last` are kept.

    All count trunk pixels from the window's top; `last` is excluded.
    """

    start: int
    first: int
    last: int


def plan_strips(height: int, width: int) -> tuple[int, list[Strip]]:
    """Return the height of every strip, and the strips that the tail computes one after the other.

    They cover a window's features (`height`, `width` in trunk pixels) without overlap. All are
    equally high, to be compiled once: the last begins further up instead of being shorter.
    """
    most = max(STRIP_PX // width, MIN_CORE_ROWS + 2 * TAIL_RADIUS_PX)
    if height <= most:
        return height, [Strip(0, 0, height)]
    overlap = 2 * TAIL_RADIUS_PX
    count = -(-(height - overlap) // (most - overlap))
    rows = -(-(height - overlap) // count) + overlap
    starts = [min(at * (rows - overlap), height - rows) for at in range(count)]
    cuts = [0, *(start + rows - TAIL_RADIUS_PX for start in starts[:-1]), height]
    return rows, [
        Strip(start, first, last)
        for start, first, last in zip(starts, cuts, cuts[1:], strict=False)
    ]
