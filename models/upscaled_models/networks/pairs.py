"""The networks that ncnn pairs may hold, each as the graph that its own `forward` computes.

A graph's last layer shows the family, counts and sizes of layers the shape. Loads no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from upscaled_models.families import Family, Shape, check_shape
from upscaled_models.families.compact import LEAK as COMPACT_LEAK
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE, SCALE_BY_INPUT_CHANNELS, rrdb_shape
from upscaled_models.families.span import BLOCKS, span_shape
from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.patterns import (
    Pattern,
    Tensors,
    add,
    convolve,
    join,
    match_graph,
    name_weights,
)
from upscaled_models.ncnn.values import Kind, Value

BLOCK_CONVOLUTIONS: Final = 15
OTHER_CONVOLUTIONS: Final = 6
"""Of an RRDB network: in each of its blocks, and outside of them."""

_RRDB, _COMPACT, _SPAN = "an RRDB network", "a compact network", "a SPAN network"


def match_network(result: Value) -> tuple[Family, Shape, Tensors]:
    """Find the network that has this result: its family, shape and (in its precision) state dict.

    Raises:
        BadParam: it is none of them; the text names the layer where it departs.
        ValueError: no network of its family has such a shape.
    """
    if result.kind in _MATCHES:
        return _MATCHES[result.kind](result)
    raise BadParam(
        f"{result.layer}: the last layer of {_RRDB} is a convolution, that of {_COMPACT} a sum, "
        f"that of {_SPAN} a pixel shuffle; this is none of them"
    )


def _match_rrdb(result: Value) -> tuple[Family, Shape, Tensors]:
    values = _list_values(result)
    first = _find_first_convolution(values, _RRDB)
    source = first.sources[0]
    fold = int(source.numbers[0]) if source.kind == "unshuffle" else 1
    if 3 * fold**2 not in SCALE_BY_INPUT_CHANNELS:
        raise BadParam(f"{source.layer}: folds {fold} by {fold} pixels, in RRDB networks 2 or 4")
    joined = (each for each in values if each.kind == "join" and len(each.sources) > 1)
    growth = next((each.sources[1].channels for each in joined), 32)
    in_blocks = max(0, _count(values, "convolution") - OTHER_CONVOLUTIONS)
    blocks = in_blocks // BLOCK_CONVOLUTIONS
    shape = rrdb_shape(SCALE_BY_INPUT_CHANNELS[3 * fold**2], blocks, first.channels, growth)
    check_shape("rrdb", shape)
    picture = Pattern("input")
    start = Pattern("unshuffle", (picture,), (fold,)) if fold > 1 else picture
    pattern = _rrdb_pattern(start, blocks, first.channels, growth)
    return "rrdb", shape, name_weights(match_graph(result, pattern, _RRDB))


def _rrdb_pattern(picture: Pattern, blocks: int, features: int, growth: int) -> Pattern:
    """Return the graph of `networks.rrdb`."""
    leak = partial(_activate, slope=LEAK)
    x = shallow = convolve(picture, "conv_first", features)
    for block in range(blocks):
        entry = x
        for dense in range(1, 4):
            name = f"body.{block}.rdb{dense}"
            seen = [x]
            for step in range(1, 5):
                seen.append(leak(convolve(join(seen), f"{name}.conv{step}", growth)))
            x = add(convolve(join(seen), f"{name}.conv5", features), x, RESIDUAL_SCALE)
        x = add(x, entry, RESIDUAL_SCALE)
    x = add(shallow, convolve(x, "conv_body", features))
    for name in ("conv_up1", "conv_up2"):
        x = leak(convolve(Pattern("enlargement", (x,), (2,)), name, features))
    return convolve(leak(convolve(x, "conv_hr", features)), "conv_last", 3)


def _match_compact(result: Value) -> tuple[Family, Shape, Tensors]:
    values = _list_values(result)
    first = _find_first_convolution(values, _COMPACT)
    scales = [int(each.numbers[0]) for each in values if each.kind == "shuffle"]
    slopes = [each.numbers for each in values if each.kind in ("relu", "prelu")]
    if not scales or not slopes:
        raise BadParam(
            f"{result.layer}: a compact network has a pixel shuffle, and at least two convolutions "
            "with an activation between them"
        )
    act_type = {(): "prelu", (0.0,): "relu"}.get(slopes[0], "leakyrelu")
    shape = srvgg_shape(scales[0], _count(values, "convolution") - 2, first.channels, act_type)
    check_shape("srvgg", shape)
    pattern = _compact_pattern(shape)
    return "srvgg", shape, name_weights(match_graph(result, pattern, _COMPACT))


def _compact_pattern(shape: Shape) -> Pattern:
    """Return the graph of `networks.compact`."""
    scale, features = int(shape["upscale"]), int(shape["num_feat"])
    slope = {"prelu": None, "relu": 0.0, "leakyrelu": COMPACT_LEAK}[str(shape["act_type"])]
    x = picture = Pattern("input")
    last = 2 * int(shape["num_conv"]) + 2
    for index in range(0, last, 2):
        x = _activate(convolve(x, f"body.{index}", features), slope, f"body.{index + 1}")
    x = convolve(x, f"body.{last}", 3 * scale**2)
    return add(Pattern("shuffle", (x,), (scale,)), Pattern("enlargement", (picture,), (scale,)))


def _match_span(result: Value) -> tuple[Family, Shape, Tensors]:
    values = _list_values(result)
    shape = span_shape(int(result.numbers[0]), _find_first_convolution(values, _SPAN).channels)
    check_shape("span", shape)
    picture = Pattern("input")
    mean = Pattern("shift", (picture,), None)
    start = mean if any(_is_of_picture(each, "shift") for each in values) else picture
    gain = Pattern("scale", (start,), None)
    start = gain if any(_is_of_picture(each, "scale") for each in values) else start
    found = match_graph(result, _span_pattern(start, shape), _SPAN)
    offset: Weights = np.zeros(3, np.float32)
    if mean in found:
        offset = found[mean].weights.get("offset", np.asarray(found[mean].numbers, np.float32))
    factor = found[gain].numbers if gain in found else (1.0,)
    tensors = name_weights(found)
    tensors["mean"] = np.broadcast_to(-offset.astype(np.float32), (3,)).copy()
    tensors["gain"] = np.array(factor, np.float32)
    return "span", shape, tensors


def _span_pattern(normalised: Pattern, shape: Shape) -> Pattern:
    """Return the graph of `networks.span` behind the normalised picture."""
    scale, features = int(shape["scale"]), int(shape["features"])
    x = shallow = convolve(normalised, "conv_1", features)
    ends: list[Pattern] = []
    for number in range(1, BLOCKS + 1):
        name = f"block_{number}"
        activated = Pattern("swish", (convolve(x, f"{name}.c1_r", features),))
        second = Pattern("swish", (convolve(activated, f"{name}.c2_r", features),))
        third = convolve(second, f"{name}.c3_r", features)
        attention = Pattern("shift", (Pattern("sigmoid", (third,)),), (-0.5,))
        x = Pattern("product", (add(third, x), attention))
        ends.append(x)
    joined = join([shallow, convolve(x, "conv_2", features), ends[0], activated])
    mixed = convolve(joined, "conv_cat", features, kernel_px=1)
    return Pattern("shuffle", (convolve(mixed, "upsampler.0", 3 * scale**2),), (scale,))


def _activate(x: Pattern, slope: float | None, name: str = "") -> Pattern:
    """Return LeakyReLU or ReLU of `x`, or PReLU, where the slopes are weights."""
    return Pattern("prelu", (x,), (), name) if slope is None else Pattern("relu", (x,), (slope,))


def _list_values(result: Value) -> list[Value]:
    """List all values that lead to the result, each once."""
    found = {result: None}
    waiting = [result]
    while waiting:
        new = [each for each in waiting.pop().sources if each not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def _find_first_convolution(values: Sequence[Value], network: str) -> Value:
    """Find a convolution of the picture, before which it may be folded or normalised."""
    found = next((each for each in values if _is_of_picture(each, "convolution")), None)
    if found is None:
        raise BadParam(f"{values[0].layer}: {network} has a convolution of the picture")
    return found


def _is_of_picture(value: Value, kind: Kind) -> bool:
    """Return whether a value of that kind is made of the picture, folded or normalised at most."""
    if value.kind != kind:
        return False
    source = value.sources[0]
    while source.kind in ("unshuffle", "shift", "scale"):
        source = source.sources[0]
    return source.kind == "input"


def _count(values: Sequence[Value], kind: Kind) -> int:
    return sum(value.kind == kind for value in values)


_MATCHES: Final[Mapping[Kind, Callable[[Value], tuple[Family, Shape, Tensors]]]] = {
    "convolution": _match_rrdb,
    "sum": _match_compact,
    "shuffle": _match_span,
}
"""By the kind of the last layer."""
