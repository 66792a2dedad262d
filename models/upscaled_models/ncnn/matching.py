"""Which network a graph is, and which of its weights each convolution holds.

The walk goes from the result back to the input and takes nothing but what the network's own
`forward` does (`networks`), so the place in the graph names a weight, not its place in the
file or a layer's name.
"""

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.expecting import (
    Tensors,
    expect,
    expect_channels,
    expect_same,
    expect_slope,
    name_convolution,
    two_terms,
)
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.span_matching import match_span
from upscaled_models.ncnn.values import (
    Activated,
    Convolved,
    Enlarged,
    Folded,
    Image,
    Joined,
    Summed,
    Unfolded,
    Value,
)
from upscaled_models.registry import Family, Shape, rrdb_shape, srvgg_shape

RESIDUAL_SCALE = 0.2
RRDB_LEAK = 0.2
COMPACT_LEAK = 0.1
DENSE_CONVOLUTIONS = 5
DENSE_BLOCKS = 3
_SCALE_BY_FOLD = {1: 4, 2: 2, 4: 1}


def match_network(result: Value) -> tuple[Family, Shape, Tensors]:
    """The family, shape and state dict of the network that gives `result`.

    The state dict has the names of the family's published files; its values keep their precision.

    Raises:
        BadParam: the graph is none of RRDB's, the compact network's and SPAN's; the text names the
            layer where it departs from it.
    """
    if isinstance(result, Convolved):
        shape, tensors = _match_rrdb(result)
        return "rrdb", shape, tensors
    if isinstance(result, Summed):
        shape, tensors = _match_compact(result)
        return "srvgg", shape, tensors
    if isinstance(result, Unfolded):
        shape, tensors = match_span(result)
        return "span", shape, tensors
    raise BadParam(
        f"{result.layer}: the last layer of an RRDB network is a convolution, that of a compact "
        "network a sum, that of a SPAN network a pixel shuffle; this is none of them"
    )


def _match_compact(result: Summed) -> tuple[Shape, Tensors]:
    shuffled, picture = two_terms(result, "compact", Unfolded, 1.0)
    nearest = expect(picture, Enlarged, "compact", "the enlarged picture")
    image = expect(nearest.source, Image, "compact", "the input")
    if shuffled.factor != nearest.factor:
        raise BadParam(f"{nearest.layer}: enlarges {nearest.factor} times, not {shuffled.factor}")
    steps: list[Activated] = []
    last = expect(shuffled.source, Convolved, "compact", "a convolution")
    convolutions = [last]
    while not isinstance(source := convolutions[-1].source, Image):
        steps.append(expect(source, Activated, "compact", "an activation"))
        convolutions.append(expect(steps[-1].source, Convolved, "compact", "a convolution"))
    expect_same(convolutions[-1].source, image, "compact")
    convolutions.reverse()
    steps.reverse()
    if not steps:
        raise BadParam(f"{last.layer}: a compact network has at least two convolutions")
    features = convolutions[0].channels
    for convolution in convolutions[:-1]:
        expect_channels(convolution, features, "compact")
    expect_channels(last, 3 * shuffled.factor**2, "compact")
    tensors: dict[str, Weights] = {}
    for index, convolution in enumerate(convolutions):
        name_convolution(tensors, f"body.{2 * index}", convolution)
    act_type = _match_activations(steps, tensors)
    return srvgg_shape(shuffled.factor, len(steps) - 1, features, act_type), tensors


def _match_activations(steps: list[Activated], tensors: dict[str, Weights]) -> str:
    """One kind in the whole network; PReLU's slopes are weights."""
    kinds = [_activation_of(step) for step in steps]
    for step, kind in zip(steps, kinds, strict=True):
        if kind != kinds[0]:
            raise BadParam(f"{step.layer}: {kind} in a network that begins with {kinds[0]}")
    for index, step in enumerate(steps):
        if not isinstance(step.slope, float):
            tensors[f"body.{2 * index + 1}.weight"] = step.slope
    return kinds[0]


def _activation_of(step: Activated) -> str:
    if not isinstance(step.slope, float):
        return "prelu"
    if step.slope == 0.0:
        return "relu"
    expect_slope(step, COMPACT_LEAK, "compact")
    return "leakyrelu"


def _match_rrdb(last: Convolved) -> tuple[Shape, Tensors]:
    tensors: dict[str, Weights] = {}
    high = _leaky_convolution(last.source)
    second = _leaky_convolution(high.source)
    first = _leaky_convolution(_doubled(second.source))
    trunk = expect(_doubled(first.source), Summed, "rrdb", "the sum of the trunk and its input")
    shallow, conv_body = _match_trunk_sum(trunk)
    blocks = _match_blocks(conv_body.source, shallow)
    source = shallow.source
    fold = source.factor if isinstance(source, Folded) else 1
    expect(source.source if isinstance(source, Folded) else source, Image, "rrdb", "the input")
    if fold not in _SCALE_BY_FOLD:
        raise BadParam(f"{source.layer}: folds {fold} by {fold} pixels, in RRDB networks 2 or 4")
    features = shallow.channels
    for name, convolution in (
        ("conv_first", shallow),
        ("conv_body", conv_body),
        ("conv_up1", first),
        ("conv_up2", second),
        ("conv_hr", high),
    ):
        expect_channels(convolution, features, "rrdb")
        name_convolution(tensors, name, convolution)
    expect_channels(last, 3, "rrdb")
    name_convolution(tensors, "conv_last", last)
    growth = blocks[0][0].channels if blocks else 32
    for index, convolutions in enumerate(blocks):
        for place, convolution in enumerate(convolutions):
            dense, step = divmod(place, DENSE_CONVOLUTIONS)
            is_fifth = step == DENSE_CONVOLUTIONS - 1
            expect_channels(convolution, features if is_fifth else growth, "rrdb")
            name = f"body.{index}.rdb{dense + 1}.conv{step + 1}"
            name_convolution(tensors, name, convolution)
    return rrdb_shape(_SCALE_BY_FOLD[fold], len(blocks), features, growth), tensors


def _match_trunk_sum(trunk: Summed) -> tuple[Convolved, Convolved]:
    """(conv_first, conv_body): the one that reads the picture and the one behind the blocks."""
    convolutions = [
        expect(value, Convolved, "rrdb", "a convolution")
        for factor, value in trunk.terms
        if factor == 1.0
    ]
    if len(convolutions) != 2:
        raise BadParam(f"{trunk.layer}: an RRDB network adds the trunk and its input here, as is")
    shallow = [c for c in convolutions if isinstance(c.source, Image | Folded)]
    if len(shallow) != 1:
        raise BadParam(f"{trunk.layer}: an RRDB network adds its first convolution here")
    convolutions.remove(shallow[0])
    return shallow[0], convolutions[0]


def _match_blocks(end: Value, start: Value) -> list[list[Convolved]]:
    """Each block's fifteen convolutions, first to last."""
    blocks: list[list[Convolved]] = []
    while end is not start:
        outer = expect(end, Summed, "rrdb", "a residual block's sum")
        inner, entry = two_terms(outer, "rrdb", Summed, RESIDUAL_SCALE)
        dense: list[list[Convolved]] = []
        source: Value = inner
        for _ in range(DENSE_BLOCKS):
            convolutions, source = _match_dense(source)
            dense.append(convolutions)
        expect_same(source, entry, "rrdb")
        blocks.append([convolution for one in reversed(dense) for convolution in one])
        end = entry
    blocks.reverse()
    return blocks


def _match_dense(end: Value) -> tuple[list[Convolved], Value]:
    """A dense block's five convolutions, first to last, and its input."""
    summed = expect(end, Summed, "rrdb", "a dense block's sum")
    fifth, entry = two_terms(summed, "rrdb", Convolved, RESIDUAL_SCALE)
    joined = expect(fifth.source, Joined, "rrdb", "a dense block's joined values")
    if len(joined.parts) != DENSE_CONVOLUTIONS:
        raise BadParam(f"{joined.layer}: joins {len(joined.parts)} values, in RRDB networks 5")
    expect_same(joined.parts[0], entry, "rrdb")
    convolutions = [_leaky_convolution(part) for part in joined.parts[1:]]
    for seen, convolution in enumerate(convolutions, start=1):
        _expect_reads(convolution, joined.parts[:seen])
    return [*convolutions, fifth], entry


def _expect_reads(convolution: Convolved, parts: tuple[Value, ...]) -> None:
    source = convolution.source
    found = source.parts if isinstance(source, Joined) else (source,)
    if len(found) != len(parts) or any(a is not b for a, b in zip(found, parts, strict=True)):
        raise BadParam(
            f"{convolution.layer}: reads other values than this convolution of an RRDB network"
        )


def _leaky_convolution(value: Value) -> Convolved:
    activated = expect(value, Activated, "rrdb", "LeakyReLU")
    expect_slope(activated, RRDB_LEAK, "rrdb")
    return expect(activated.source, Convolved, "rrdb", "a convolution")


def _doubled(value: Value) -> Value:
    enlarged = expect(value, Enlarged, "rrdb", "a doubling")
    if enlarged.factor != 2:
        raise BadParam(f"{enlarged.layer}: enlarges {enlarged.factor} times, in RRDB networks 2")
    return enlarged.source
