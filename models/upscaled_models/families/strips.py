"""Rows of an RRDB network's features, which its tail takes a few of at a time.

All strips of a window are as high as each other, so that the tail is compiled once for it: the last
one begins further up instead of being shorter.
"""

from dataclasses import dataclass

TAIL_RADIUS_PX = 2
"""In trunk pixels: a convolution at twice their grid and three at four times reach 1.25 of them."""

STRIP_PX = 128 * 128
"""Trunk pixels that the tail takes at once. Each of its layers holds 4 kB for one of them in
float32: 130 MB for a layer's input and output, however large the window is."""

MIN_CORE_ROWS = 8
"""Of very wide windows; so that the rows computed twice stay fewer than those kept."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of features, from `start` on, of whose results rows `first` to `last` are kept.

    All of them count trunk pixels from the window's top; `last` is excluded.
    """

    start: int
    first: int
    last: int


def plan_strips(height: int, width: int) -> tuple[int, list[Strip]]:
    """The height of every strip, and the strips, which cover the window's rows without overlap.

    Args:
        height, width: of the features, in trunk pixels.
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
