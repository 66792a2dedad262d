"""Build the graph of a network from its shape and weights.

An RRDB network can also be had as two graphs: a trunk that sees a whole window and a tail that runs
on a few rows of its features at a time. The tail works on 16 times the trunk's pixels, so that one
graph of both needs most of its memory there, for a tenth of the arithmetic.

A graph ends where bfloat16 would cost whole levels and OpenVINO is slow: before the pixel shuffle
and the enlarged input that compact and plain networks add. `finishing` does these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino.layers import (
    Convolution,
    Floats,
    Layers,
    Quantisation,
    common_grid,
)
from upscaled_models.backends.openvino.nodes import (
    LEVELS,
    convolve,
    convolve_doubled,
    leak,
    to_grid,
)
from upscaled_models.backends.openvino.runtime import Graph, Node, import_openvino
from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import LEAK as SRVGG_LEAK
from upscaled_models.families.plain import LIMIT, SLOPE
from upscaled_models.families.realplksr import GROUP_EPSILON, GROUPS, LAYER_EPSILON
from upscaled_models.families.rrdb import LEAK as RRDB_LEAK
from upscaled_models.families.rrdb import RESIDUAL_SCALE
from upscaled_models.families.span import BLOCKS as SPAN_BLOCKS


def has_graph(family: Family, shape: Shape) -> bool:
    """Whether a network can be built as a graph; DySample, which reads pixels anywhere, cannot."""
    return family in GRAPH_FAMILIES and shape.get("upsampler") != "dysample"


def build_graph(family: Family, shape: Shape, layers: Layers) -> Graph:
    """Build an `openvino.Model` from uint8 `[N, h, w, 3]` to float32, any N, h and w.

    Its result is in levels (0..255, not clamped): for rrdb the picture `[N, h*s, w*s, 3]`, for span
    the picture as `[N, h, w, s*s*3]`, all of a pixel's rows, columns and colours in this order, and
    for the others, in the same order, what is added to the enlarged input.

    Raises:
        ValueError: there is no graph of such a network.
    """
    if not has_graph(family, shape):
        raise ValueError(f"there is no graph of a {family} network of shape {dict(shape)}")
    pixels, x = _take_pixels()
    return _end(GRAPH_FAMILIES[family].build(x, shape, layers), pixels, family)


def build_trunk(shape: Shape, layers: Layers) -> Graph:
    """Build the trunk of an rrdb network, from uint8 `[N, h, w, 3]` to its features.

    Features are float32 `[N, h / fold, w / fold, num_feat]`; fold is input pixels a trunk pixel.
    """
    pixels, x = _take_pixels()
    return _end(_rrdb_trunk(x, shape, layers), pixels, "rrdb-trunk")


def build_tail(shape: Shape, layers: Layers) -> Graph:
    """Build what follows the trunk of an rrdb network, from features to levels.

    From float32 `[N, h, w, num_feat]` to float32 `[N, 4h, 4w, 3]`, levels as of `build_graph`.

    A result pixel depends on features at most `networks.rrdb.TAIL_RADIUS_PX` from its own.
    """
    openvino = import_openvino()
    features = openvino.opset15.parameter([-1, -1, -1, int(shape["num_feat"])], openvino.Type.f32)
    return _end(_rrdb_tail(_to_planes(features), layers), features, "rrdb-tail")


def _take_pixels() -> tuple[Node, Node]:
    """Make the input of a graph, uint8 `[N, h, w, 3]`, and the same as floats `[N, 3, h, w]`."""
    openvino = import_openvino()
    pixels = openvino.opset15.parameter([-1, -1, -1, 3], openvino.Type.u8)
    return pixels, _to_planes(openvino.opset15.convert(pixels, "f32"))


def _to_planes(x: Node) -> Node:
    ops = import_openvino().opset15
    return ops.transpose(x, ops.constant(np.array([0, 3, 1, 2])))


def _end(y: Node, source: Node, name: str) -> Graph:
    openvino = import_openvino()
    ops = openvino.opset15
    result = ops.result(ops.transpose(y, ops.constant(np.array([0, 2, 3, 1]))))
    return openvino.Model([result], [source], name)


def _plain(x: Node, shape: Shape, layers: Layers) -> Node:
    ops = import_openvino().opset15
    steps = _differences(x)
    limited = ops.clamp(ops.multiply(steps, np.float32(LIMIT)), -float(LEVELS), float(LEVELS))
    z = ops.concat([steps, limited], 1)
    z = leak(convolve(z, layers.convolutions["head"], input_gain=LEVELS), SLOPE)
    for index in range(int(shape["layers"])):
        z = leak(convolve(z, layers.convolutions[f"body.{index}"]), SLOPE)
    order = _shuffle_order(int(shape["scale"]))
    return convolve(z, layers.convolutions["tail"], output_gain=LEVELS, order=order)


def _differences(x: Node) -> Node:
    """See `upscaled_models.families.plain.differences`; whole levels, so exact in any precision."""
    ops = import_openvino().opset15
    end = np.iinfo(np.int64).max
    padded = ops.pad(x, [0, 0, 0, 0], [0, 0, 1, 1], "edge")
    across = ops.slice(padded, [0, 1], [-1, end], [1, 1], [2, 3])
    down = ops.slice(padded, [1, 0], [end, -1], [1, 1], [2, 3])
    return ops.concat([ops.subtract(across, x), ops.subtract(down, x)], 1)


def _srvgg(x: Node, shape: Shape, layers: Layers) -> Node:
    last = 2 * (int(shape["num_conv"]) + 1)
    gain: float = LEVELS
    for index in range(0, last, 2):
        x = convolve(x, layers.convolutions[f"body.{index}"], input_gain=gain)
        x = leak(x, _srvgg_slope(f"body.{index + 1}", str(shape["act_type"]), layers))
        gain = 1.0
    order = _shuffle_order(int(shape["upscale"]))
    return convolve(x, layers.convolutions[f"body.{last}"], output_gain=LEVELS, order=order)


def _srvgg_slope(name: str, act_type: str, layers: Layers) -> float | Floats:
    if act_type == "prelu":
        return layers.slopes[name]
    return SRVGG_LEAK if act_type == "leakyrelu" else 0.0


def _rrdb(x: Node, shape: Shape, layers: Layers) -> Node:
    return _rrdb_tail(_rrdb_trunk(x, shape, layers), layers)


def _rrdb_trunk(x: Node, shape: Shape, layers: Layers) -> Node:
    ops = import_openvino().opset15
    convolutions = layers.convolutions
    unshuffle = 4 // int(shape["scale"])
    if unshuffle > 1:
        x = ops.space_to_depth(x, "depth_first", unshuffle)
    shallow = convolve(x, convolutions["conv_first"], input_gain=LEVELS)
    features = shallow
    for index in range(int(shape["num_block"])):
        inner = features
        for number in (1, 2, 3):
            inner = _dense(inner, f"body.{index}.rdb{number}", layers)
        features = _add_residual(features, inner)
    return ops.add(shallow, convolve(features, convolutions["conv_body"]))


def _rrdb_tail(features: Node, layers: Layers) -> Node:
    convolutions = layers.convolutions
    for name in ("conv_up1", "conv_up2"):
        features = convolve_doubled(features, convolutions[name], RRDB_LEAK)
    features = leak(convolve(features, convolutions["conv_hr"]), RRDB_LEAK)
    return convolve(features, convolutions["conv_last"], output_gain=LEVELS)


def _dense(x: Node, name: str, layers: Layers) -> Node:
    convolutions = [layers.convolutions[f"{name}.conv{number}"] for number in range(1, 6)]
    is_float = all(each.quantised is None for each in convolutions)
    return _add_residual(x, (_dense_in_pairs if is_float else _dense_joined)(x, convolutions))


def _dense_in_pairs(x: Node, convolutions: Sequence[Convolution]) -> Node:
    """Build a dense block in floats: each convolution is a sum over two outputs at a time.

    These are joined once for all that read them: joining anew all that each convolution reads took
    7 % of a window of 256 px in bfloat16.
    """
    pairs = [x]
    y = convolve(x, convolutions[0])
    for at, convolution in enumerate(convolutions[1:], 1):
        y = leak(y, RRDB_LEAK)
        pairs = [*pairs[:-1], _join([pairs[-1], y])] if at % 2 else [*pairs, y]
        y = _convolve_sum(pairs, convolution)
    return y


def _convolve_sum(parts: Sequence[Node], layer: Convolution) -> Node:
    """Convolve all parts as if they were joined, without joining them."""
    channels = [int(part.get_output_partial_shape(0)[1].get_length()) for part in parts]
    slices = pairwise(accumulate(channels, initial=0))
    total: Node | None = None
    for part, (start, end) in zip(parts, slices, strict=True):
        bias = layer.bias if total is None else None
        y = convolve(part, replace(layer, weight=layer.weight[:, start:end], bias=bias))
        total = y if total is None else import_openvino().opset15.add(total, y)
    return total


def _dense_joined(x: Node, convolutions: Sequence[Convolution]) -> Node:
    """Build a dense block in 8 bits.

    On one grid for all five convolutions, each output is rounded once, by the convolution that
    made it; else once for each that reads it, which takes a seventh of the time.
    """
    grid = common_grid(convolutions)
    if grid is not None:
        return _dense_on_grid(x, convolutions, grid)
    seen: list[Node] = []
    y = x
    for convolution in convolutions:
        y = leak(y, RRDB_LEAK) if seen else y
        seen.append(y)
        y = convolve(_join(seen), convolution)
    return y


def _dense_on_grid(x: Node, convolutions: Sequence[Convolution], grid: Quantisation) -> Node:
    """Build a dense block in 8 bits on one grid.

    What is divided by channel before it is rounded is scaled by its own convolution instead:
    LeakyReLU keeps any positive factor.
    """
    start = convolutions[0].weight.shape[1]
    seen = [to_grid(x, _on_channels(grid, 0, start))]
    for convolution in convolutions[:-1]:
        end = start + convolution.weight.shape[0]
        part = _on_channels(grid, start, end)
        gain = 1.0 if part.input_scale is None else np.reciprocal(part.input_scale)
        y = convolve(_join(seen), convolution, output_gain=gain, is_on_grid=True)
        seen.append(to_grid(leak(y, RRDB_LEAK), replace(part, input_scale=None)))
        start = end
    return convolve(_join(seen), convolutions[-1], is_on_grid=True)


def _on_channels(grid: Quantisation, start: int, end: int) -> Quantisation:
    """Return the part of a grid that some of its channels have."""
    scale = grid.input_scale
    return grid if scale is None else replace(grid, input_scale=scale[start:end])


def _join(seen: Sequence[Node]) -> Node:
    return seen[0] if len(seen) == 1 else import_openvino().opset15.concat(list(seen), 1)


def _add_residual(x: Node, residual: Node) -> Node:
    ops = import_openvino().opset15
    return ops.add(x, ops.multiply(residual, np.float32(RESIDUAL_SCALE)))


def _span(x: Node, shape: Shape, layers: Layers) -> Node:
    ops = import_openvino().opset15
    convolutions = layers.convolutions
    mean = layers.constants["mean"].reshape(1, 3, 1, 1) * np.float32(LEVELS)
    centred = ops.subtract(x, ops.constant(mean)) if mean.any() else x
    gain = LEVELS / float(layers.constants["gain"][0])
    shallow = convolve(centred, convolutions["conv_1"], input_gain=gain)
    features = shallow
    blocks: list[Node] = []
    for number in range(1, SPAN_BLOCKS + 1):
        features, activated = _span_block(features, f"block_{number}", layers)
        blocks.append(features)
    last = convolve(features, convolutions["conv_2"])
    joined = ops.concat([shallow, last, blocks[0], activated], 1)
    order = _shuffle_order(int(shape["scale"]))
    y = convolve(joined, convolutions["conv_cat"])
    return convolve(y, convolutions["upsampler.0"], output_gain=LEVELS, order=order)


def _span_block(x: Node, name: str, layers: Layers) -> tuple[Node, Node]:
    """See `upscaled_models.networks.span.SpanBlock`."""
    ops = import_openvino().opset15
    one, two, three = (layers.convolutions[f"{name}.c{number}_r"] for number in (1, 2, 3))
    first = ops.swish(convolve(x, one))
    last = convolve(ops.swish(convolve(first, two)), three)
    attention = ops.subtract(ops.sigmoid(last), np.float32(0.5))
    return ops.multiply(ops.add(last, x), attention), first


def _realplksr(x: Node, shape: Shape, layers: Layers) -> Node:
    """See `networks.realplksr`; without the pixel shuffle and the enlarged picture."""
    ops = import_openvino().opset15
    features = convolve(x, layers.convolutions["feats.0"], input_gain=LEVELS)
    blocks = int(shape["blocks"])
    for number in range(1, blocks + 1):
        features = ops.add(features, _plksr_residual(features, f"feats.{number}", shape, layers))
    order = _shuffle_order(int(shape["scale"]))
    last = layers.convolutions[f"feats.{blocks + 2}"]
    return convolve(features, last, output_gain=LEVELS, order=order)


def _plksr_residual(x: Node, name: str, shape: Shape, layers: Layers) -> Node:
    """Build what a block adds to its input."""
    ops = import_openvino().opset15
    convolutions, constants = layers.convolutions, layers.constants
    if shape["norm"] == "layer":
        x = ops.mvn(x, ops.constant(np.array([1])), True, LAYER_EPSILON, "inside_sqrt")
        x = ops.multiply(x, constants[f"{name}.layer_norm.weight"].reshape(1, -1, 1, 1))
        x = ops.add(x, constants[f"{name}.layer_norm.bias"].reshape(1, -1, 1, 1))
    y = ops.mish(convolve(x, convolutions[f"{name}.channel_mixer.0"]))
    y = convolve(y, convolutions[f"{name}.channel_mixer.2"])
    wide = int(shape["wide_features"])
    rest = int(shape["features"]) - wide
    large = convolutions[f"{name}.lk.conv"]
    if rest:
        parts = ops.variadic_split(y, 1, [wide, rest])
        y = ops.concat([convolve(parts.output(0), large), parts.output(1)], 1)
    else:
        y = convolve(y, large)
    if shape["attention"] == "yes":
        y = ops.multiply(y, ops.sigmoid(convolve(y, convolutions[f"{name}.attn.f.0"])))
    y = convolve(y, convolutions[f"{name}.refine"])
    if shape["norm"] == "group":
        weight, bias = constants[f"{name}.norm.weight"], constants[f"{name}.norm.bias"]
        y = ops.group_normalization(y, weight, bias, GROUPS, GROUP_EPSILON)
    return y


def _shuffle_order(scale: int) -> NDArray[np.intp]:
    """Order a pixel shuffle's channels (colour, row, column) by (row, column, colour)."""
    return np.arange(3 * scale**2).reshape(3, scale, scale).transpose(1, 2, 0).ravel()


@dataclass(frozen=True, slots=True)
class GraphFamily:
    """How the networks of a family run as graphs.

    build: adds the network's nodes behind its input. enlargement: OpenCV's interpolation of the
    input that is added to the result outside of the graph; None where none is added.
    max_ready_shapes: how many compiled shapes are kept; each holds 5 to 20 MB, RRDB's with 23
    blocks 85 (8 bits) to 115 MB. max_unready_px: windows of an odd shape up to this area are not
    worth a compilation and run in float32 by torch, but for an engine under trial.
    """

    build: Callable[[Node, Shape, Layers], Node]
    enlargement: int | None = None
    max_ready_shapes: int = 8
    max_unready_px: int = 0


GRAPH_FAMILIES: Final[Mapping[Family, GraphFamily]] = {
    "plain": GraphFamily(_plain, cv2.INTER_LINEAR),
    "srvgg": GraphFamily(_srvgg, cv2.INTER_NEAREST),
    "rrdb": GraphFamily(_rrdb, max_ready_shapes=2, max_unready_px=96 * 96),
    "span": GraphFamily(_span),
    "realplksr": GraphFamily(
        _realplksr, cv2.INTER_NEAREST, max_ready_shapes=3, max_unready_px=96 * 96
    ),
}
"""Every family that has a graph; a new one is a row here and its function above."""
