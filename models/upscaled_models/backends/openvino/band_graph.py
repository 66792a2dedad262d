"""Build the graphs that compute a tall window in bands of rows, none of them twice.

A convolution of 3x3 needs one row above and one below each of its rows. Where a window is cut in
two, both halves would need as many rows of the other as the chain has convolutions. Instead each
band begins with the last two rows of every layer's input that the band before it left, and ends
where rows below are missing, one row earlier with each layer:

    rows of the input of layer    0   1   2   3       a, b: of two bands; A: the rows that the
                                  a   a   a   a       first keeps for the second
                                  a   a   A   b
                                  a   A   A   b
                                  A   A   b   b
                                  A   b   b   b
                                  b   b   b   .
                                  b   b   .   .

Most rows of a layer depend on rows of the same band alone. So these are one tensor, `main`, which
loses two rows with each layer; the rows above it, which need what was kept, are another, `upper`,
which gains two. Joining both for each layer took 7 % of a network's time in 8 bits. What a band
computes is what the whole window would be computed to: in 8 bits to the last bit.
"""

from enum import Enum
from typing import Final

import numpy as np

from upscaled_models.backends.openvino.runtime import Graph, Node, import_openvino
from upscaled_models.networks.chain import Chain

KEPT_ROWS: Final = 2
"""Rows of each layer's input that a band keeps for the next."""

_TO_PLANES: Final = (0, 3, 1, 2)
_TO_PIXELS: Final = (0, 2, 3, 1)
_END: Final = np.iinfo(np.int64).max


class Position(Enum):
    """Position of a band in its window: what lies above and below the window counts as zeros."""

    FIRST = "first"
    INNER = "inner"
    LAST = "last"


def build_band_graph(
    chain: Chain, position: Position, *, is_planar: bool = False, hint: str = "f32"
) -> Graph:
    """Build an `openvino.Model` for one band of a window, of any height and width.

    Its inputs are uint8 pixels `[1, rows, w, 3]` and, but for the first band, what was kept of each
    layer, `[1, 2, w / f, C]` in the type `hint`, f the network's fold: in another one OpenVINO
    would convert the whole layer before it cuts two rows of it. Its results are, but for the last
    band, what is kept, and then as of `graph.build_graph`, or of `graph.build_planar_graph` where
    it `is_planar`: but for the first band two of them, of upper rows and of those below.
    """
    openvino = import_openvino()
    ops = openvino.opset15
    pixels = ops.parameter([1, -1, -1, 3], openvino.Type.u8)
    main = chain.prepare(_transpose(ops.convert(pixels, "f32"), _TO_PLANES))
    if position is not Position.LAST and chain.rows_below:
        main = _cut(main, 0, -chain.rows_below)
    upper: Node | None = None
    inputs, kept = [pixels], list[Node]()
    padded = (int(position is Position.FIRST), int(position is Position.LAST))
    for link in chain.links:
        main = link.to_grid(main)
        top, bottom = _cut_ends(main)
        if position is not Position.LAST:
            kept.append(_transpose(ops.convert(bottom, hint), _TO_PIXELS))
        if position is not Position.FIRST:
            shape = [1, KEPT_ROWS, -1, _count_channels(main)]
            inputs.append(ops.parameter(shape, getattr(openvino.Type, hint)))
            before = _transpose(ops.convert(inputs[-1], "f32"), _TO_PLANES)
            parts = [link.mark_grid(before), *([] if upper is None else [link.to_grid(upper)]), top]
            upper = link.convolve(ops.concat(parts, 2), rows_padded=(0, 0))
        main = link.convolve(main, rows_padded=padded)
    made = [main] if upper is None else [upper, main]
    results = [*kept, *(made if is_planar else (_transpose(each, _TO_PIXELS) for each in made))]
    return openvino.Model(list(map(ops.result, results)), inputs, f"band-{position.value}")


def _cut_ends(main: Node) -> tuple[Node, Node]:
    """Add the first and the last rows of a layer's input.

    OpenVINO computes one result after the other. Cut at once, for the result that is kept, the
    first rows no longer hold the memory of all until the upper ones are computed: 180 MB for
    164x1500 pixels in 8 bits.
    """
    ends = [_cut(main, 0, KEPT_ROWS), _cut(main, -KEPT_ROWS, _END)]
    both = import_openvino().opset15.concat(ends, 2)
    return _cut(both, 0, KEPT_ROWS), _cut(both, KEPT_ROWS, 2 * KEPT_ROWS)


def _cut(x: Node, first: int, last: int) -> Node:
    """Add a cut of rows `first` to `last` of `[N, C, h, w]`."""
    return import_openvino().opset15.slice(x, [first], [last], [1], [2])


def _transpose(x: Node, order: tuple[int, ...]) -> Node:
    ops = import_openvino().opset15
    return ops.transpose(x, ops.constant(np.array(order)))


def _count_channels(x: Node) -> int:
    return int(x.get_output_partial_shape(0)[1].get_length())
