"""Nodes of graphs: convolution, rounding to 8-bit levels, activation, enlargement."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino.layers import Convolution, Floats, Quantisation
from upscaled_models.backends.openvino.runtime import Node, import_openvino

LEVELS: Final = 255
"""Graphs compute in levels of 0..255, not 0..1: whole numbers to 256 are exact in bfloat16."""

ACTIVATION_LEVELS: Final = 256


def convolve(
    x: Node,
    layer: Convolution,
    *,
    input_gain: float = 1.0,
    output_gain: float | Floats = 1.0,
    order: NDArray[np.intp] | None = None,
    is_on_grid: bool = False,
    rows_padded: tuple[int, int] | None = None,
) -> Node:
    """Add a convolution with zero padding, of `[N, I, h, w]` to `[N, O, h, w]`.

    Args:
        input_gain: `x` is larger by this factor than what the layer was made for.
        output_gain: the result is to be larger by this factor, each channel `[O]` or all.
        order: output channels in this order.
        is_on_grid: `x` went through `to_grid` before, for this layer's own levels.
        rows_padded: rows of zeros above and below; None: as many as keep the height.
    """
    ops = import_openvino().opset15
    count = layer.weight.shape[0]
    gains = np.broadcast_to(np.asarray(output_gain, np.float32), count)
    order = np.arange(count) if order is None else order
    quantised = layer.quantised
    gain = (gains / np.float32(input_gain))[order].reshape(-1, 1, 1, 1)
    if quantised is None:
        weight = ops.constant(np.ascontiguousarray(layer.weight[order] * gain))
    else:
        x = x if is_on_grid else to_grid(x, quantised, input_gain)
        scale = quantised.weight_scale[order].reshape(-1, 1, 1, 1) * gain
        whole = ops.convert(ops.constant(np.ascontiguousarray(layer.weight[order])), "f32")
        weight = ops.multiply(whole, ops.constant(scale))
    margin = layer.weight.shape[2] // 2
    above, below = rows_padded or (margin, margin)
    y = ops.convolution(x, weight, [1, 1], [above, margin], [below, margin], [1, 1])
    if layer.bias is not None:
        bias = (layer.bias * gains)[order]
        y = ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1)))
    return y


def to_grid(x: Node, quantised: Quantisation, input_gain: float = 1.0) -> Node:
    """Round each value of `x` to the nearest of the levels between the ends of the range.

    Where `quantised` divides channels first, the result is what they were divided into: OpenVINO
    computes both at once.
    """
    fake_quantize = import_openvino().opset15.fake_quantize
    low, high = (np.float32(end * input_gain) for end in (quantised.low, quantised.high))
    if quantised.input_scale is None:
        return fake_quantize(x, low, high, low, high, ACTIVATION_LEVELS)
    scale = quantised.input_scale.reshape(1, -1, 1, 1)
    return fake_quantize(x, low * scale, high * scale, low, high, ACTIVATION_LEVELS)


def leak(x: Node, slope: float | Floats) -> Node:
    """Add LeakyReLU, or PReLU for one slope a channel (`[C]`: any other shape is not fused)."""
    slopes = np.atleast_1d(np.asarray(slope, dtype=np.float32))
    ops = import_openvino().opset15
    return ops.relu(x) if not slopes.any() else ops.prelu(x, ops.constant(slopes))


def convolve_doubled(x: Node, layer: Convolution, slope: float) -> Node:
    """Add a 3x3 convolution of `double(x)` and LeakyReLU: `[N, C, h, w]` to `[N, O, 2h, 2w]`.

    In floats without doubling: each of four pixels in the place of one takes 4 products instead of
    9, a fifth of the time of what follows an RRDB network's trunk.
    """
    if layer.quantised is not None:
        return leak(convolve(double(x), layer), slope)
    parts = [_convolve_phase(x, layer, row, column, slope) for row in (0, 1) for column in (0, 1)]
    ops = import_openvino().opset15
    return ops.depth_to_space(ops.concat(parts, 1), "blocks_first", 2)


_TAPS: Final = (
    np.array([[1, 0, 0], [0, 1, 1]], np.float32),
    np.array([[1, 1, 0], [0, 0, 1]], np.float32),
)
"""Rows of a kernel of three that fall onto each of two rows of the input, by the result's phase."""


def _convolve_phase(x: Node, layer: Convolution, row: int, column: int, slope: float) -> Node:
    """Add the results in every other row and column, from `row` and `column` on."""
    ops = import_openvino().opset15
    weight = np.einsum("oikl,pk,ql->oipq", layer.weight, _TAPS[row], _TAPS[column])
    weight = np.ascontiguousarray(weight, np.float32)
    before, after = [1 - row, 1 - column], [row, column]
    y = ops.convolution(x, ops.constant(weight), [1, 1], before, after, [1, 1])
    if layer.bias is not None:
        y = ops.add(y, ops.constant(layer.bias.reshape(1, -1, 1, 1)))
    return leak(y, slope)


def double(x: Node) -> Node:
    """Enlarge `[N, C, h, w]` to `[N, C, 2h, 2w]`, each pixel four times."""
    ops = import_openvino().opset15
    factors = ops.constant(np.array([2, 2], np.float32))
    return ops.interpolate(
        x,
        factors,
        "nearest",
        "scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=ops.constant(np.array([2, 3])),
    )


def shuffle_order(scale: int) -> NDArray[np.intp]:
    """Order a pixel shuffle's channels (colour, row, column) by (row, column, colour)."""
    return np.arange(3 * scale**2).reshape(3, scale, scale).transpose(1, 2, 0).ravel()
