"""Build the OpenVINO graph of an RRDB network: its trunk, and its tail, which runs in strips."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from upscaled_models.backends.openvino import nodes
from upscaled_models.backends.openvino.layers import Convolution, Layers, Quantisation, common_grid
from upscaled_models.backends.openvino.runtime import Node, import_openvino
from upscaled_models.families import Shape
from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE, fold_of


def build_trunk(x: Node, shape: Shape, layers: Layers) -> Node:
    """Build the trunk, from a picture in levels to its features."""
    ops = import_openvino().opset15
    convolutions = layers.convolutions
    fold = fold_of(int(shape["scale"]))
    if fold > 1:
        x = ops.space_to_depth(x, "depth_first", fold)
    shallow = nodes.convolve(x, convolutions["conv_first"], input_gain=nodes.LEVELS)
    features = shallow
    for index in range(int(shape["num_block"])):
        inner = features
        for number in (1, 2, 3):
            inner = _dense(inner, f"body.{index}.rdb{number}", layers)
        features = _add_residual(features, inner)
    return ops.add(shallow, nodes.convolve(features, convolutions["conv_body"]))


def build_tail(features: Node, layers: Layers) -> Node:
    """Build the tail, from features (`strips.TAIL_RADIUS_PX` around) to the picture in levels."""
    convolutions = layers.convolutions
    for name in ("conv_up1", "conv_up2"):
        features = nodes.convolve_doubled(features, convolutions[name], LEAK)
    features = nodes.leak(nodes.convolve(features, convolutions["conv_hr"]), LEAK)
    return nodes.convolve(features, convolutions["conv_last"], output_gain=nodes.LEVELS)


def _dense(x: Node, name: str, layers: Layers) -> Node:
    convolutions = [layers.convolutions[f"{name}.conv{number}"] for number in range(1, 6)]
    is_float = all(each.quantised is None for each in convolutions)
    return _add_residual(x, (_dense_in_pairs if is_float else _dense_joined)(x, convolutions))


def _dense_in_pairs(x: Node, convolutions: Sequence[Convolution]) -> Node:
    """Build a dense block in floats: each convolution is a sum over two outputs at a time.

    Joining anew all that each convolution reads took 7 % of a window of 256 px in bfloat16.
    """
    pairs = [x]
    y = nodes.convolve(x, convolutions[0])
    for at, convolution in enumerate(convolutions[1:], 1):
        y = nodes.leak(y, LEAK)
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
        y = nodes.convolve(part, replace(layer, weight=layer.weight[:, start:end], bias=bias))
        total = y if total is None else import_openvino().opset15.add(total, y)
    return total


def _dense_joined(x: Node, convolutions: Sequence[Convolution]) -> Node:
    """Build a dense block in 8 bits; with one grid for all, each output is rounded only once.

    Else every convolution rounds what it reads, which takes a seventh of the time.
    """
    grid = common_grid(convolutions)
    if grid is not None:
        return _dense_on_grid(x, convolutions, grid)
    seen: list[Node] = []
    y = x
    for convolution in convolutions:
        y = nodes.leak(y, LEAK) if seen else y
        seen.append(y)
        y = nodes.convolve(_join(seen), convolution)
    return y


def _dense_on_grid(x: Node, convolutions: Sequence[Convolution], grid: Quantisation) -> Node:
    """Build a dense block in 8 bits on one grid.

    Where a channel is to be divided before rounding, the convolution that makes it divides:
    LeakyReLU keeps any positive factor.
    """
    start = convolutions[0].weight.shape[1]
    seen = [nodes.to_grid(x, _on_channels(grid, 0, start))]
    for convolution in convolutions[:-1]:
        end = start + convolution.weight.shape[0]
        part = _on_channels(grid, start, end)
        gain = 1.0 if part.input_scale is None else np.reciprocal(part.input_scale)
        y = nodes.convolve(_join(seen), convolution, output_gain=gain, is_on_grid=True)
        seen.append(nodes.to_grid(nodes.leak(y, LEAK), replace(part, input_scale=None)))
        start = end
    return nodes.convolve(_join(seen), convolutions[-1], is_on_grid=True)


def _on_channels(grid: Quantisation, start: int, end: int) -> Quantisation:
    """Return the grid of the channels from `start` up to `end`."""
    scale = grid.input_scale
    return grid if scale is None else replace(grid, input_scale=scale[start:end])


def _join(seen: Sequence[Node]) -> Node:
    return seen[0] if len(seen) == 1 else import_openvino().opset15.concat(list(seen), 1)


def _add_residual(x: Node, residual: Node) -> Node:
    ops = import_openvino().opset15
    return ops.add(x, ops.multiply(residual, np.float32(RESIDUAL_SCALE)))
