"""SPAN: six blocks of convolutions with parameter-free attention (arXiv:2311.12770)."""

from collections.abc import Collection, Sequence
from typing import ClassVar, Final

from upscaled_models.families import base
from upscaled_models.families.pair_graph import (
    GraphValue,
    Pattern,
    add,
    convolve,
    is_of_picture,
    join,
)

BLOCKS: Final = 6

RADIUS_PX: Final = 3 * BLOCKS + 3
"""Three convolutions in each block, one before, one behind, and the last."""


def span_shape(scale: int, features: int = 48) -> base.Shape:
    return {"scale": scale, "features": features}


class SpanFamily(base.NetworkFamily):
    """SPAN networks, whose convolutions consist of parts until `networks.span.fuse_state`."""

    label = "SPAN"
    example = span_shape(scale=4)

    pair_network = "a SPAN network"
    pair_result = "shuffle"
    pair_defaults: ClassVar = {"mean": (0.0, 0.0, 0.0), "gain": (1.0,)}

    def recognises(self, names: Collection[str]) -> bool:
        return "block_1.c1_r.weight" in names and "conv_cat.weight" in names

    def shape_of(self, sizes: base.Sizes) -> base.Shape:
        features, num_in, *_ = base.convolution_size(sizes, "conv_1.weight")
        num_out, *_ = base.convolution_size(sizes, "upsampler.0.weight")
        if num_in != 3:
            raise base.UnknownArchitecture(f"a SPAN network of {num_in} channels in")
        return span_shape(base.scale_of_channels(num_out), features)

    def pair_shape(self, values: Sequence[GraphValue]) -> base.Shape:
        scale = int(values[0].numbers[0])
        return span_shape(scale, self.find_first_convolution(values).channels)

    def pair_graph(self, shape: base.Shape, values: Sequence[GraphValue]) -> Pattern:
        """Return the graph of `networks.span`, which normalises the picture where `values` do."""
        scale, features = base.whole(shape, "scale"), base.whole(shape, "features")
        x = Pattern("input")
        if any(is_of_picture(each, "shift") for each in values):
            x = Pattern("shift", (x,), None, "mean")
        if any(is_of_picture(each, "scale") for each in values):
            x = Pattern("scale", (x,), None, "gain")
        x = shallow = convolve(x, "conv_1", features)
        ends: list[Pattern] = []
        for number in range(1, BLOCKS + 1):
            x, activated = _block_graph(x, f"block_{number}", features)
            ends.append(x)
        joined = join([shallow, convolve(x, "conv_2", features), ends[0], activated])
        mixed = convolve(joined, "conv_cat", features, kernel_px=1)
        return Pattern("shuffle", (convolve(mixed, "upsampler.0", 3 * scale**2),), (scale,))

    def radius_px(self, shape: base.Shape) -> int:
        return RADIUS_PX


def _block_graph(x: Pattern, name: str, features: int) -> tuple[Pattern, Pattern]:
    """Return a block's result and the first of its activated values."""
    first = Pattern("swish", (convolve(x, f"{name}.c1_r", features),))
    second = Pattern("swish", (convolve(first, f"{name}.c2_r", features),))
    third = convolve(second, f"{name}.c3_r", features)
    attention = Pattern("shift", (Pattern("sigmoid", (third,)),), (-0.5,))
    return Pattern("product", (add(third, x), attention)), first
