"""Build the graph of an ncnn pair: values that refer to the values they are made of.

Exporters write the same network in many ways, which become one here: a fused activation is a value
of its own, `Split` makes no new value, a product with a number is part of the sum it goes into, and
values joined in steps are joined at once. A layer or an option that no known network has is refused
by `BadParam`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from upscaled_models.ncnn.binary import WeightReader
from upscaled_models.ncnn.param import BadParam, Options, ParamLayer, shorten
from upscaled_models.ncnn.values import (
    Activated,
    Constant,
    Convolved,
    Curved,
    Enlarged,
    Folded,
    Input,
    Joined,
    Multiplied,
    Scaled,
    Shifted,
    Summed,
    Unfolded,
    Value,
)

IMAGE_CHANNELS: Final = 3
MAX_PARTS: Final = 5
"""No network here joins or adds more values at once."""
MAX_CHANNELS: Final = 1 << 16
"""More than any network that could be run (`families.base.MAX_SHAPE_NUMBER`) joins."""

_KERNELS_PX: Final = (1, 3)


def build_graph(layers: Sequence[ParamLayer], reader: WeightReader) -> Value:
    """Return the network's result, which refers to all values that lead to it.

    A layer that does not lead to it, or a second result, is refused.
    """
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


def _make_image(options: Options, _sources: list[Value], _reader: WeightReader) -> Value:
    options.ignore_all()  # hints of a size; any size will do
    return Input(options.layer, IMAGE_CHANNELS)


def _make_convolved(options: Options, sources: list[Value], reader: WeightReader) -> Value:
    layer, channels = options.layer, options.count(0)
    options.demand(8, 0, 0, "the number of bits (8 where this is not 0)")
    kernel_px = _demand_plain_convolution(options)
    weight_count = options.count(6)
    inputs = sources[0].channels
    if weight_count != channels * inputs * kernel_px**2:
        raise BadParam(
            f"{layer}: {weight_count} weights (option 6), but {channels} times {inputs} channels "
            f"in {kernel_px}x{kernel_px} are {channels * inputs * kernel_px**2}"
        )
    weight = reader.read_tagged(weight_count, str(layer))
    bias = reader.read_plain(channels, str(layer))
    shape = (channels, inputs, kernel_px, kernel_px)
    convolved = Convolved(layer, channels, sources[0], weight.reshape(shape), bias)
    slope = _fused_slope(options)
    return convolved if slope is None else Activated(layer, channels, convolved, slope)


def _demand_plain_convolution(options: Options) -> int:
    """Refuse all but 3x3 padded by one pixel of zeros and 1x1, stride 1, with biases.

    Heights default to widths. Returns the kernel's side.
    """
    kernel_px = options.number(1, 0)
    if not isinstance(kernel_px, int) or kernel_px not in _KERNELS_PX:
        raise BadParam(
            f"{options.layer}: kernel size is {kernel_px} (option 1), in networks here 1 or 3"
        )
    options.demand(11, kernel_px, kernel_px, "kernel size")
    for across, down, meaning in ((2, 12, "dilation"), (3, 13, "stride")):
        options.demand(across, 1, 1, meaning)
        options.demand(down, 1, 1, meaning)
    margin_px = kernel_px // 2
    options.demand(4, margin_px, 0, "padding")
    for side in (14, 15, 16):
        options.demand(side, margin_px, margin_px, "padding")
    options.demand(18, 0, 0, "the padding's value")
    options.demand(5, 1, 0, "the number that says whether it has biases")
    options.demand(19, 0, 0, "the number that says whether another layer makes its weights")
    return kernel_px


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


def _make_relu(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    slope = float(options.number(0, 0.0))
    return Activated(options.layer, sources[0].channels, sources[0], slope)


def _make_prelu(options: Options, sources: list[Value], reader: WeightReader) -> Value:
    (source,) = sources
    count = options.count(0)
    if count != source.channels:
        raise BadParam(f"{options.layer}: {count} slopes for {source.channels} channels")
    slopes = reader.read_plain(count, str(options.layer))
    return Activated(options.layer, source.channels, source, slopes)


def _make_joined(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    options.demand(0, 0, 0, "the axis to join along")
    parts: list[Value] = []
    for source in sources:
        parts += source.parts if isinstance(source, Joined) else (source,)
        if len(parts) > MAX_PARTS:
            raise BadParam(f"{options.layer}: joins more than {MAX_PARTS} values")
    return Joined(options.layer, sum(part.channels for part in parts), tuple(parts))


def _make_constant(options: Options, _sources: list[Value], reader: WeightReader) -> Value:
    """Read ncnn's `MemoryData` of one number for each channel: 1 wide, 1 high."""
    options.demand(0, 1, 0, "the width of the kept numbers")
    options.demand(1, 1, 0, "the height of the kept numbers")
    channels = options.count(2)
    options.demand(11, 0, 0, "the depth of the kept numbers")
    options.demand(21, 1, 1, "the way that the numbers are kept (1: as float32)")
    if channels > MAX_CHANNELS:
        raise BadParam(f"{options.layer}: more than {MAX_CHANNELS} channels")
    return Constant(options.layer, channels, reader.read_plain(channels, str(options.layer)))


def _make_curved(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    kind: Literal["sigmoid", "swish"] = "swish" if options.layer.kind == "Swish" else "sigmoid"
    return Curved(options.layer, sources[0].channels, sources[0], kind)


def _make_binary(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    """Read ncnn's `BinaryOp`: sums, differences and products of two values, or one and a number."""
    kind, has_scalar = options.number(0, 0), options.number(1, 0)
    scalar = float(options.number(2, 0.0))
    layer = options.layer
    if has_scalar == 1 and len(sources) == 1 and kind in (0, 1, 2):
        (source,) = sources
        if kind == 2:
            return Scaled(layer, source.channels, source, scalar)
        return Shifted(layer, source.channels, source, scalar if kind == 0 else -scalar)
    if has_scalar == 0 and len(sources) == 2 and kind in (0, 1, 2):
        first, second = sources
        if kind == 2:
            return _product_of(layer, first, second)
        if isinstance(first, Constant) and kind == 0:
            first, second = second, first
        if isinstance(second, Constant) and second.channels == first.channels:
            offset = second.values if kind == 0 else -second.values
            return Shifted(layer, first.channels, first, offset)
        if kind == 0:
            return _sum_of(layer, [(1.0, source) for source in sources])
    raise BadParam(
        f"{layer}: operation {kind} (option 0) on {len(sources)} values is neither the sum nor the "
        "product of two, nor a sum, a difference or a product with numbers"
    )


def _product_of(layer: ParamLayer, first: Value, second: Value) -> Value:
    """Return a product, or swish, which some exporters write as a value times its sigmoid."""
    if first.channels != second.channels:
        raise BadParam(f"{layer}: multiplies values of different numbers of channels")
    for one, other in ((first, second), (second, first)):
        if isinstance(other, Curved) and other.kind == "sigmoid" and other.source is one:
            return Curved(layer, one.channels, one, "swish")
    return Multiplied(layer, first.channels, first, second)


def _make_eltwise(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    options.demand(0, 1, 0, "the operation (1: sum)")
    factors = options.numbers(1) or (1.0,) * len(sources)
    if len(factors) != len(sources):
        raise BadParam(f"{options.layer}: {len(factors)} factors for {len(sources)} values")
    return _sum_of(options.layer, list(zip(map(float, factors), sources, strict=True)))


def _sum_of(layer: ParamLayer, terms: list[tuple[float, Value]]) -> Value:
    if len({value.channels for _, value in terms}) != 1:
        raise BadParam(f"{layer}: adds values of different numbers of channels")
    unscaled = (
        (factor * value.factor, value.source) if isinstance(value, Scaled) else (factor, value)
        for factor, value in terms
    )
    return Summed(layer, terms[0][1].channels, tuple(unscaled))


def _make_enlarged(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    options.demand(0, 1, 0, "the way to resize (1: nearest neighbour)")
    height, width = options.number(1, 1.0), options.number(2, 1.0)
    for key, meaning in (
        (3, "the size to resize to"),
        (4, "the size to resize to"),
        (5, "the number that says whether another layer gives the size"),
        (6, "the number that says whether corners are aligned"),
    ):
        options.demand(key, 0, 0, meaning)
    if height != width or height != int(height) or height < 1:
        raise BadParam(f"{options.layer}: resizes {width} by {height} times, no whole number")
    return Enlarged(options.layer, sources[0].channels, sources[0], int(height))


def _make_unfolded(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    factor = options.count(0)
    options.demand(1, 0, 0, "the order of pixels")
    channels, rest = divmod(sources[0].channels, factor**2)
    if rest:
        raise BadParam(f"{options.layer}: {sources[0].channels} channels are no {factor}x{factor}")
    return Unfolded(options.layer, channels, sources[0], factor)


def _make_folded(options: Options, sources: list[Value], _reader: WeightReader) -> Value:
    factor = options.count(0)
    options.demand(1, 0, 0, "the order of pixels")
    return Folded(options.layer, sources[0].channels * factor**2, sources[0], factor)


_Maker = Callable[[Options, list[Value], WeightReader], Value]
_MAKERS: Mapping[str, tuple[int, int, _Maker]] = {
    "Input": (0, 0, _make_image),
    "Convolution": (1, 1, _make_convolved),
    "ReLU": (1, 1, _make_relu),
    "PReLU": (1, 1, _make_prelu),
    "Split": (1, 1, lambda _options, sources, _reader: sources[0]),
    "Sigmoid": (1, 1, _make_curved),
    "Swish": (1, 1, _make_curved),
    "MemoryData": (0, 0, _make_constant),
    "Concat": (1, MAX_PARTS, _make_joined),
    "BinaryOp": (1, 2, _make_binary),
    "Eltwise": (2, 2, _make_eltwise),
    "Interp": (1, 1, _make_enlarged),
    "PixelShuffle": (1, 1, _make_unfolded),
    "Reorg": (1, 1, _make_folded),
}
"""Fewest and most inputs of each kind of layer, and the function that makes its value."""
