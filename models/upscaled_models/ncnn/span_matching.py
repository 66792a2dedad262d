"""SPAN's graph, walked from its pixel shuffle back to the picture."""

import numpy as np
from numpy.typing import NDArray

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.expecting import (
    Tensors,
    expect,
    expect_channels,
    expect_same,
    name_convolution,
    two_terms,
)
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import (
    Convolved,
    Curved,
    Image,
    Joined,
    Multiplied,
    Scaled,
    Shifted,
    Summed,
    Unfolded,
    Value,
)
from upscaled_models.registry import Shape, span_shape

BLOCKS = 6
ATTENTION_SHIFT = -0.5


def match_span(result: Unfolded) -> tuple[Shape, Tensors]:
    """The shape and the state dict (`networks.span`) of the network that gives `result`.

    Raises:
        BadParam: the graph is not SPAN's; the text names the layer where it departs from it.
    """
    last = expect(result.source, Convolved, "span", "a convolution")
    mixed = expect(last.source, Convolved, "span", "a convolution")
    joined = expect(mixed.source, Joined, "span", "four joined values")
    if len(joined.parts) != 4:
        raise BadParam(f"{joined.layer}: joins {len(joined.parts)} values, in SPAN networks 4")
    shallow = expect(joined.parts[0], Convolved, "span", "the first convolution")
    behind = expect(joined.parts[1], Convolved, "span", "the convolution behind the blocks")
    features = shallow.channels
    tensors: dict[str, Weights] = {}
    end: Value = behind.source
    for number in range(BLOCKS, 0, -1):
        if number == 1:
            expect_same(joined.parts[2], end, "span")
        convolutions, end, activated = _match_block(end)
        if number == BLOCKS:
            expect_same(joined.parts[3], activated, "span")
        for step, convolution in enumerate(convolutions, start=1):
            expect_channels(convolution, features, "span")
            name_convolution(tensors, f"block_{number}.c{step}_r", convolution)
    expect_same(end, shallow, "span")
    tensors["mean"], tensors["gain"] = _match_normalisation(shallow.source)
    for name, convolution, channels, kernel_px in (
        ("conv_1", shallow, features, 3),
        ("conv_2", behind, features, 3),
        ("conv_cat", mixed, features, 1),
        ("upsampler.0", last, 3 * result.factor**2, 3),
    ):
        expect_channels(convolution, channels, "span", kernel_px=kernel_px)
        name_convolution(tensors, name, convolution)
    return span_shape(result.factor, features), tensors


def _match_block(end: Value) -> tuple[list[Convolved], Value, Value]:
    """A block's three convolutions, first to last, its input, and its first activated value."""
    weighed = expect(end, Multiplied, "span", "a block's product")
    summed, attention = weighed.first, weighed.second
    if isinstance(summed, Shifted):
        summed, attention = attention, summed
    total = expect(summed, Summed, "span", "a block's sum")
    shifted = expect(attention, Shifted, "span", "an attention less a half")
    if not np.array_equal(shifted.offset, ATTENTION_SHIFT):
        raise BadParam(f"{shifted.layer}: shifts by {shifted.offset}, in SPAN networks by -0.5")
    sigmoid = expect(shifted.source, Curved, "span", "a sigmoid")
    third = expect(sigmoid.source, Convolved, "span", "a convolution")
    if sigmoid.kind != "sigmoid" or all(value is not third for _, value in total.terms):
        raise BadParam(f"{sigmoid.layer}: in SPAN networks the sigmoid of a block's own result")
    _, entry = two_terms(total, "span", Convolved, 1.0, but=third)
    second, _ = _swished_convolution(third.source)
    first, activated = _swished_convolution(second.source)
    expect_same(first.source, entry, "span")
    return [first, second, third], entry, activated


def _swished_convolution(value: Value) -> tuple[Convolved, Value]:
    """(a convolution, its activated value)."""
    activated = expect(value, Curved, "span", "a swish")
    if activated.kind != "swish":
        raise BadParam(f"{activated.layer}: a {activated.kind}, in SPAN networks a swish")
    return expect(activated.source, Convolved, "span", "a convolution"), activated


def _match_normalisation(value: Value) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean `[3]` that is taken from the picture, and the gain `[1]` that follows."""
    gain, mean = 1.0, np.zeros(3, np.float32)
    if isinstance(value, Scaled):
        gain, value = value.factor, value.source
    if isinstance(value, Shifted):
        mean = np.broadcast_to(-np.asarray(value.offset, np.float32), (3,)).copy()
        value = value.source
    expect(value, Image, "span", "the input")
    return mean, np.array([gain], np.float32)
