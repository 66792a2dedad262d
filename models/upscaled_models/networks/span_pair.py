"""Match SPAN's graph, walked from its pixel shuffle back to the picture."""

import numpy as np
from numpy.typing import NDArray

from upscaled_models.families import Shape
from upscaled_models.families.span import BLOCKS, span_shape
from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.checks import GraphCheck, Tensors
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import (
    Convolved,
    Curved,
    Input,
    Joined,
    Multiplied,
    Scaled,
    Shifted,
    Summed,
    Unfolded,
    Value,
)

ATTENTION_SHIFT = -0.5
_SPAN = GraphCheck("a SPAN network")


def match_span(result: Unfolded) -> tuple[Shape, Tensors]:
    """Return the shape and the state dict (`networks.span`) of the network with this result."""
    last = _SPAN.convolution(result.source)
    mixed = _SPAN.convolution(last.source)
    joined = _SPAN.kind(mixed.source, Joined, "four joined values")
    if len(joined.parts) != 4:
        raise BadParam(f"{joined.layer}: joins {len(joined.parts)} values, in SPAN networks 4")
    shallow = _SPAN.kind(joined.parts[0], Convolved, "the first convolution")
    behind = _SPAN.kind(joined.parts[1], Convolved, "the convolution behind the blocks")
    features = shallow.channels
    tensors: dict[str, Weights] = {}
    end: Value = behind.source
    for number in range(BLOCKS, 0, -1):
        if number == 1:
            _SPAN.same(joined.parts[2], end)
        convolutions, end, activated = _match_block(end)
        if number == BLOCKS:
            _SPAN.same(joined.parts[3], activated)
        for step, convolution in enumerate(convolutions, start=1):
            _SPAN.named(tensors, f"block_{number}.c{step}_r", convolution, features)
    _SPAN.same(end, shallow)
    tensors["mean"], tensors["gain"] = _match_normalisation(shallow.source)
    for name, convolution, channels, kernel_px in (
        ("conv_1", shallow, features, 3),
        ("conv_2", behind, features, 3),
        ("conv_cat", mixed, features, 1),
        ("upsampler.0", last, 3 * result.factor**2, 3),
    ):
        _SPAN.named(tensors, name, convolution, channels, kernel_px=kernel_px)
    return span_shape(result.factor, features), tensors


def _match_block(end: Value) -> tuple[list[Convolved], Value, Value]:
    """Return a block's three convolutions, its input, and its first activated value."""
    weighed = _SPAN.kind(end, Multiplied, "a block's product")
    summed, attention = weighed.first, weighed.second
    if isinstance(summed, Shifted):
        summed, attention = attention, summed
    total = _SPAN.kind(summed, Summed, "a block's sum")
    shifted = _SPAN.kind(attention, Shifted, "an attention less a half")
    if not np.array_equal(shifted.offset, ATTENTION_SHIFT):
        raise BadParam(f"{shifted.layer}: shifts by {shifted.offset}, in SPAN networks by -0.5")
    sigmoid = _SPAN.kind(shifted.source, Curved, "a sigmoid")
    third = _SPAN.convolution(sigmoid.source)
    if sigmoid.kind != "sigmoid" or all(value is not third for _, value in total.terms):
        raise BadParam(f"{sigmoid.layer}: in SPAN networks the sigmoid of a block's own result")
    _, entry = _SPAN.two_terms(total, Convolved, 1.0, but=third)
    second, _ = _swished_convolution(third.source)
    first, activated = _swished_convolution(second.source)
    _SPAN.same(first.source, entry)
    return [first, second, third], entry, activated


def _swished_convolution(value: Value) -> tuple[Convolved, Value]:
    """Return a convolution and its activated value."""
    activated = _SPAN.kind(value, Curved, "a swish")
    if activated.kind != "swish":
        raise BadParam(f"{activated.layer}: a {activated.kind}, in SPAN networks a swish")
    return _SPAN.convolution(activated.source), activated


def _match_normalisation(value: Value) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean `[3]` that is subtracted from the picture, and the gain `[1]` that
    follows."""
    gain, mean = 1.0, np.zeros(3, np.float32)
    if isinstance(value, Scaled):
        gain, value = value.factor, value.source
    if isinstance(value, Shifted):
        mean = np.broadcast_to(-np.asarray(value.offset, np.float32), (3,)).copy()
        value = value.source
    _SPAN.kind(value, Input, "the input")
    return mean, np.array([gain], np.float32)
