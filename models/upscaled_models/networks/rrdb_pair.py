"""Match an RRDB network's graph, walked from its last convolution back to the picture."""

from upscaled_models.families import Shape
from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE, SCALE_BY_INPUT_CHANNELS, rrdb_shape
from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.checks import GraphCheck, Tensors
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import (
    Activated,
    Convolved,
    Enlarged,
    Folded,
    Input,
    Joined,
    Summed,
    Value,
)

DENSE_CONVOLUTIONS = 5
DENSE_BLOCKS = 3
_RRDB = GraphCheck("an RRDB network")


def match_rrdb(last: Convolved) -> tuple[Shape, Tensors]:
    """Return the shape and the state dict (`networks.rrdb`) of the network with this result."""
    high = _leaky_convolution(last.source)
    second = _leaky_convolution(high.source)
    first = _leaky_convolution(_doubled(second.source))
    trunk = _RRDB.kind(_doubled(first.source), Summed, "the sum of the trunk and its input")
    shallow, conv_body = _match_trunk_sum(trunk)
    blocks = _match_blocks(conv_body.source, shallow)
    scale = _match_scale(shallow.source)
    features = shallow.channels
    growth = blocks[0][0].channels if blocks else 32
    tensors: dict[str, Weights] = {}
    for name, convolution in (
        ("conv_first", shallow),
        ("conv_body", conv_body),
        ("conv_up1", first),
        ("conv_up2", second),
        ("conv_hr", high),
    ):
        _RRDB.named(tensors, name, convolution, features)
    _RRDB.named(tensors, "conv_last", last, 3)
    for index, convolutions in enumerate(blocks):
        for at, convolution in enumerate(convolutions):
            dense, step = divmod(at, DENSE_CONVOLUTIONS)
            name = f"body.{index}.rdb{dense + 1}.conv{step + 1}"
            is_fifth = step == DENSE_CONVOLUTIONS - 1
            _RRDB.named(tensors, name, convolution, features if is_fifth else growth)
    return rrdb_shape(scale, len(blocks), features, growth), tensors


def _match_scale(source: Value) -> int:
    """Return the network's scale: networks of scale 2 and 1 first fold pixels into channels."""
    fold = source.factor if isinstance(source, Folded) else 1
    _RRDB.kind(source.source if isinstance(source, Folded) else source, Input, "the input")
    if 3 * fold**2 not in SCALE_BY_INPUT_CHANNELS:
        raise BadParam(f"{source.layer}: folds {fold} by {fold} pixels, in RRDB networks 2 or 4")
    return SCALE_BY_INPUT_CHANNELS[3 * fold**2]


def _match_trunk_sum(trunk: Summed) -> tuple[Convolved, Convolved]:
    """Return conv_first, which reads the picture, and conv_body, which follows the blocks."""
    convolutions = [_RRDB.convolution(value) for factor, value in trunk.terms if factor == 1.0]
    if len(convolutions) != 2:
        raise BadParam(f"{trunk.layer}: an RRDB network adds the trunk and its input here, as is")
    shallow = [c for c in convolutions if isinstance(c.source, Input | Folded)]
    if len(shallow) != 1:
        raise BadParam(f"{trunk.layer}: an RRDB network adds its first convolution here")
    convolutions.remove(shallow[0])
    return shallow[0], convolutions[0]


def _match_blocks(end: Value, start: Value) -> list[list[Convolved]]:
    """Return each block's fifteen convolutions, first to last."""
    blocks: list[list[Convolved]] = []
    while end is not start:
        outer = _RRDB.kind(end, Summed, "a residual block's sum")
        inner, entry = _RRDB.two_terms(outer, Summed, RESIDUAL_SCALE)
        dense: list[list[Convolved]] = []
        source: Value = inner
        for _ in range(DENSE_BLOCKS):
            convolutions, source = _match_dense(source)
            dense.append(convolutions)
        _RRDB.same(source, entry)
        blocks.append([convolution for one in reversed(dense) for convolution in one])
        end = entry
    return blocks[::-1]


def _match_dense(end: Value) -> tuple[list[Convolved], Value]:
    """Return a dense block's five convolutions, first to last, and its input."""
    summed = _RRDB.kind(end, Summed, "a dense block's sum")
    fifth, entry = _RRDB.two_terms(summed, Convolved, RESIDUAL_SCALE)
    joined = _RRDB.kind(fifth.source, Joined, "a dense block's joined values")
    if len(joined.parts) != DENSE_CONVOLUTIONS:
        raise BadParam(f"{joined.layer}: joins {len(joined.parts)} values, in RRDB networks 5")
    _RRDB.same(joined.parts[0], entry)
    convolutions = [_leaky_convolution(part) for part in joined.parts[1:]]
    for seen, convolution in enumerate(convolutions, start=1):
        _expect_reads(convolution, joined.parts[:seen])
    return [*convolutions, fifth], entry


def _expect_reads(convolution: Convolved, parts: tuple[Value, ...]) -> None:
    source = convolution.source
    read = source.parts if isinstance(source, Joined) else (source,)
    if len(read) != len(parts) or any(a is not b for a, b in zip(read, parts, strict=True)):
        raise BadParam(
            f"{convolution.layer}: reads other values than this convolution of an RRDB network"
        )


def _leaky_convolution(value: Value) -> Convolved:
    activated = _RRDB.kind(value, Activated, "LeakyReLU")
    _RRDB.slope(activated, LEAK)
    return _RRDB.convolution(activated.source)


def _doubled(value: Value) -> Value:
    enlarged = _RRDB.kind(value, Enlarged, "a doubling")
    if enlarged.factor != 2:
        raise BadParam(f"{enlarged.layer}: enlarges {enlarged.factor} times, in RRDB networks 2")
    return enlarged.source
