"""Build the graph of an ncnn pair: values that refer to the values they are made of.

What exporters write in many ways becomes one here: a fused activation is a value of its own,
`Split` makes none, a product with a number is part of the sum it goes into, and values joined in
steps are joined at once. Other layers and options raise `BadParam`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from upscaled_models.families.pair_graph import Kind
from upscaled_models.ncnn.binary import WeightReader, Weights
from upscaled_models.ncnn.param import BadParam, Options, ParamLayer, shorten

IMAGE_CHANNELS: Final = 3
MAX_PARTS: Final = 5
"""No network here joins or adds more values at once."""
MAX_CHANNELS: Final = 1 << 16
"""More than any network that could be run (`families.base.MAX_SHAPE_NUMBER`) joins."""

_KERNELS_PX: Final = (1, 3)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """The result of a layer: `channels` planes. Compared by identity: two layers, two values.

    numbers: the slope of "relu", the number of "shift" and "scale", the factor of "enlargement"
    (nearest neighbour), "shuffle" and "unshuffle", and the factor of each source of a "sum".
    weights: "weight" `[out, in, k, k]` and "bias" `[out]` of a convolution (stride 1, k // 2 pixels
    of zeros around), "weight" `[C]` of "prelu", "values" `[C]` of "constant", "offset" `[C]` of a
    "shift" by one number for each channel. No source of a "join" is itself a "join".
    """

    layer: ParamLayer
    kind: Kind
    channels: int
    sources: tuple["Value", ...] = ()
    numbers: tuple[float, ...] = ()
    weights: Mapping[str, Weights] = field(default_factory=dict)


Sources = list[Value]


def build_graph(layers: Sequence[ParamLayer], reader: WeightReader) -> Value:
    """Return the network's one result, which refers to all values; stray layers are refused."""
    values: dict[str, Value] = {}
    used: set[int] = set()
    for layer in layers:
        if missing := [name for name in layer.inputs if name not in values]:
            blob = shorten(missing[0])
            raise BadParam(f"{layer}: reads blob {blob}, which no layer before it makes")
        sources = [values[name] for name in layer.inputs]
        if layer.kind != "Split":
            used.update(id(source) for source in sources)
        value = _make_value(layer, sources, reader)
        for name in layer.outputs:
            if name in values:
                raise BadParam(f"{layer}: blob {shorten(name)} is made a second time")
            values[name] = value
    reader.end()
    results = {id(value): value for value in values.values() if id(value) not in used}
    if len(results) != 1:
        ends = "; ".join(str(value.layer) for value in list(results.values())[:2])
        raise BadParam(f"a network here has one result, and this has {len(results)} ({ends})")
    return next(iter(results.values()))


def _make_value(layer: ParamLayer, sources: list[Value], reader: WeightReader) -> Value:
    if layer.kind not in _MAKERS:
        raise BadParam(
            f"{layer}: a layer of a kind that no network has whose ncnn pairs are read here"
        )
    least, most, make = _MAKERS[layer.kind]
    if not least <= len(sources) <= most:
        raise BadParam(f"{layer}: {len(sources)} inputs, must be {least} to {most}")
    if not layer.outputs or (len(layer.outputs) > 1 and layer.kind != "Split"):
        raise BadParam(f"{layer}: {len(layer.outputs)} outputs, must be 1")
    options = Options(layer)
    value = make(options, sources, reader)
    options.refuse_others()
    if value.channels > MAX_CHANNELS:
        raise BadParam(f"{layer}: more than {MAX_CHANNELS} channels, which no network here has")
    return value


def _make_image(options: Options, _sources: Sources, _reader: WeightReader) -> Value:
    options.ignore_all()  # hints of a size; any size will do
    return Value(options.layer, "input", IMAGE_CHANNELS)


def _make_convolution(options: Options, sources: Sources, reader: WeightReader) -> Value:
    """Read a convolution of 3x3 padded by one pixel of zeros, or 1x1; stride 1, with biases."""
    layer, channels, kernel_px = options.layer, options.count(0), options.number(1, 0)
    if not isinstance(kernel_px, int) or kernel_px not in _KERNELS_PX:
        raise BadParam(f"{layer}: kernel size is {kernel_px} (option 1), in networks here 1 or 3")
    margin_px = kernel_px // 2
    options.demand(  # heights default to widths
        (8, 0, 0, "the number of bits (8 where this is not 0)"),
        (11, kernel_px, kernel_px, "kernel size"),
        *((key, 1, 1, "dilation") for key in (2, 12)),
        *((key, 1, 1, "stride") for key in (3, 13)),
        (4, margin_px, 0, "padding"),
        *((key, margin_px, margin_px, "padding") for key in (14, 15, 16)),
        (18, 0, 0, "the padding's value"),
        (5, 1, 0, "the number that says whether it has biases"),
        (19, 0, 0, "the number that says whether another layer makes its weights"),
    )
    weight_count, inputs = options.count(6), sources[0].channels
    if weight_count != channels * inputs * kernel_px**2:
        raise BadParam(
            f"{layer}: {weight_count} weights (option 6), but {channels} times {inputs} channels "
            f"in {kernel_px}x{kernel_px} are {channels * inputs * kernel_px**2}"
        )
    weight = reader.read_tagged(weight_count, str(layer))
    weights = {
        "weight": weight.reshape(channels, inputs, kernel_px, kernel_px),
        "bias": reader.read_plain(channels, str(layer)),
    }
    convolved = Value(layer, "convolution", channels, tuple(sources), weights=weights)
    slope = _fused_slope(options)
    return convolved if slope is None else Value(layer, "relu", channels, (convolved,), (slope,))


def _fused_slope(options: Options) -> float | None:
    """Return the slope of a convolution's own activation: None, 0 for ReLU, or LeakyReLU's."""
    kind, numbers = options.number(9, 0), options.numbers(10)
    if kind == 2 and len(numbers) == 1:
        return float(numbers[0])
    if kind not in (0, 1):
        raise BadParam(
            f"{options.layer}: activation {kind} (option 9) with {len(numbers)} numbers is neither "
            "ReLU nor LeakyReLU"
        )
    return None if kind == 0 else 0.0


def _make_relu(options: Options, sources: Sources, _reader: WeightReader) -> Value:
    slope = float(options.number(0, 0.0))
    return Value(options.layer, "relu", sources[0].channels, tuple(sources), (slope,))


def _make_prelu(options: Options, sources: Sources, reader: WeightReader) -> Value:
    count, channels = options.count(0), sources[0].channels
    if count != channels:
        raise BadParam(f"{options.layer}: {count} slopes for {channels} channels")
    slopes = {"weight": reader.read_plain(count, str(options.layer))}
    return Value(options.layer, "prelu", channels, tuple(sources), weights=slopes)


def _make_join(options: Options, sources: Sources, _reader: WeightReader) -> Value:
    options.demand((0, 0, 0, "the axis to join along"))
    parts: Sources = []
    for source in sources:
        parts += source.sources if source.kind == "join" else (source,)
        if len(parts) > MAX_PARTS:
            raise BadParam(f"{options.layer}: joins more than {MAX_PARTS} values")
    return Value(options.layer, "join", sum(part.channels for part in parts), tuple(parts))


def _make_constant(options: Options, _sources: Sources, reader: WeightReader) -> Value:
    """Read ncnn's `MemoryData` of one number for each channel: 1 wide, 1 high."""
    options.demand(
        (0, 1, 0, "the width of the constants"),
        (1, 1, 0, "the height of the constants"),
        (11, 0, 0, "the depth of the constants"),
        (21, 1, 1, "how the constants are stored (1: as float32)"),
    )
    channels = options.count(2)
    if channels > MAX_CHANNELS:
        raise BadParam(f"{options.layer}: more than {MAX_CHANNELS} channels")
    values = {"values": reader.read_plain(channels, str(options.layer))}
    return Value(options.layer, "constant", channels, weights=values)


def _make_curve(options: Options, sources: Sources, _reader: WeightReader) -> Value:
    kind: Kind = "swish" if options.layer.kind == "Swish" else "sigmoid"
    return Value(options.layer, kind, sources[0].channels, tuple(sources))


def _make_binary(options: Options, sources: Sources, _reader: WeightReader) -> Value:
    """Read ncnn's `BinaryOp`: sums, differences and products of two values, or one and a number."""
    operation, has_scalar = options.number(0, 0), options.number(1, 0)
    scalar = float(options.number(2, 0.0))
    layer = options.layer
    if has_scalar == 1 and len(sources) == 1 and operation in (0, 1, 2):
        kind: Kind = "scale" if operation == 2 else "shift"
        number = -scalar if operation == 1 else scalar
        return Value(layer, kind, sources[0].channels, tuple(sources), (number,))
    if has_scalar == 0 and len(sources) == 2 and operation in (0, 1, 2):
        first, second = sources
        if operation == 2:
            return _product_of(layer, first, second)
        if first.kind == "constant" and operation == 0:
            first, second = second, first
        if second.kind == "constant" and second.channels == first.channels:
            values = second.weights["values"]
            offset = {"offset": values if operation == 0 else -values}
            return Value(layer, "shift", first.channels, (first,), weights=offset)
        if operation == 0:
            return _sum_of(layer, sources, (1.0, 1.0))
    raise BadParam(
        f"{layer}: operation {operation} (option 0) on {len(sources)} values is neither the sum "
        "nor the product of two, nor a sum, a difference or a product with numbers"
    )


def _product_of(layer: ParamLayer, first: Value, second: Value) -> Value:
    """Return a product, or swish, which some exporters write as a value times its sigmoid."""
    if first.channels != second.channels:
        raise BadParam(f"{layer}: multiplies values of different numbers of channels")
    for one, other in ((first, second), (second, first)):
        if other.kind == "sigmoid" and other.sources == (one,):
            return Value(layer, "swish", one.channels, (one,))
    return Value(layer, "product", first.channels, (first, second))


def _make_eltwise(options: Options, sources: Sources, _reader: WeightReader) -> Value:
    options.demand((0, 1, 0, "the operation (1: sum)"))
    factors = options.numbers(1) or (1.0,) * len(sources)
    if len(factors) != len(sources):
        raise BadParam(f"{options.layer}: {len(factors)} factors for {len(sources)} values")
    return _sum_of(options.layer, sources, factors)


def _sum_of(layer: ParamLayer, sources: Sources, factors: Sequence[float]) -> Value:
    if len({value.channels for value in sources}) != 1:
        raise BadParam(f"{layer}: adds values of different numbers of channels")
    terms = [
        (factor * value.numbers[0], value.sources[0]) if value.kind == "scale" else (factor, value)
        for factor, value in zip(factors, sources, strict=True)
    ]
    numbers, values = zip(*terms, strict=True)
    return Value(layer, "sum", sources[0].channels, values, numbers)


def _make_enlargement(options: Options, sources: Sources, _reader: WeightReader) -> Value:
    height, width = options.number(1, 1.0), options.number(2, 1.0)
    options.demand(
        (0, 1, 0, "the way to resize (1: nearest neighbour)"),
        (3, 0, 0, "the size to resize to"),
        (4, 0, 0, "the size to resize to"),
        (5, 0, 0, "the number that says whether another layer gives the size"),
        (6, 0, 0, "the number that says whether corners are aligned"),
    )
    if height != width or height != int(height) or height < 1:
        raise BadParam(f"{options.layer}: resizes {width} by {height} times, no whole number")
    factor = int(height)
    return Value(options.layer, "enlargement", sources[0].channels, tuple(sources), (factor,))


def _make_shuffle(
    options: Options, sources: Sources, _reader: WeightReader, *, is_inverse: bool
) -> Value:
    factor, channels = options.count(0), sources[0].channels
    options.demand((1, 0, 0, "the order of pixels"))
    if is_inverse:
        inside = channels * factor**2
        return Value(options.layer, "unshuffle", inside, tuple(sources), (factor,))
    if channels % factor**2:
        raise BadParam(f"{options.layer}: {channels} channels are no {factor}x{factor}")
    return Value(options.layer, "shuffle", channels // factor**2, tuple(sources), (factor,))


_Maker = Callable[[Options, Sources, WeightReader], Value]
_MAKERS: Mapping[str, tuple[int, int, _Maker]] = {
    "Input": (0, 0, _make_image),
    "Convolution": (1, 1, _make_convolution),
    "ReLU": (1, 1, _make_relu),
    "PReLU": (1, 1, _make_prelu),
    "Split": (1, 1, lambda _options, sources, _reader: sources[0]),
    "Sigmoid": (1, 1, _make_curve),
    "Swish": (1, 1, _make_curve),
    "MemoryData": (0, 0, _make_constant),
    "Concat": (1, MAX_PARTS, _make_join),
    "BinaryOp": (1, 2, _make_binary),
    "Eltwise": (2, 2, _make_eltwise),
    "Interp": (1, 1, _make_enlargement),
    "PixelShuffle": (1, 1, partial(_make_shuffle, is_inverse=False)),
    "Reorg": (1, 1, partial(_make_shuffle, is_inverse=True)),
}
"""Fewest and most inputs of each kind of layer, and the function that makes its value."""
