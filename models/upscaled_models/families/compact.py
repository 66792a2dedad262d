"""Compact networks (SRVGGNetCompact): the small ones of Real-ESRGAN, in a row of convolutions."""

import re
from collections.abc import Collection, Sequence
from typing import ClassVar, Final

from upscaled_models.families import base
from upscaled_models.families.pair_graph import (
    GraphValue,
    Pattern,
    activate,
    add,
    convolve,
    count_convolutions,
)

LEAK: Final = 0.1
"""Slope of LeakyReLU below 0."""

_BODY: Final = re.compile(r"body\.(\d+)\.weight")


def srvgg_shape(
    upscale: int, num_conv: int, num_feat: int = 64, act_type: str = "prelu"
) -> base.Shape:
    return {
        "num_in_ch": 3,
        "num_out_ch": 3,
        "num_feat": num_feat,
        "num_conv": num_conv,
        "upscale": upscale,
        "act_type": act_type,
    }


class CompactFamily(base.NetworkFamily):
    """Networks of `num_conv + 2` convolutions; the input, enlarged as it is, is added."""

    label = "compact (SRVGG)"
    example = srvgg_shape(upscale=4, num_conv=1)
    words: ClassVar = {"act_type": ("prelu", "leakyrelu", "relu")}
    counts = ("num_conv",)
    scale_argument = "upscale"
    untuned_window_px = 512
    """512x512 through general-x4v3 is 1.7 times the arithmetic in windows of 256 px, for their
    halos: float32 takes 5.4 s so and 4.3 s in 512 px on two cores, though large windows fit the
    caches worse."""

    is_quantisable = True
    tuning_rate = 0.004
    equalised_share = 0.6
    """More for activations: with PReLU half of their 256 levels are below 0, where little lies."""

    pair_network = "a compact network"
    pair_result = "sum"

    def recognises(self, names: Collection[str]) -> bool:
        return "body.0.weight" in names and "tail.weight" not in names

    def shape_of(self, sizes: base.Sizes) -> base.Shape:
        """Read the shape; activations without weights (ReLU, LeakyReLU) count as LeakyReLU."""
        num_feat, num_in, *_ = base.convolution_size(sizes, "body.0.weight")
        last = max(base.numbers_in(sizes, _BODY))
        num_out, *_ = base.convolution_size(sizes, f"body.{last}.weight")
        if num_in != 3 or last < 2 or last % 2:
            raise base.UnknownArchitecture(
                f"an SRVGGNetCompact of {num_in} channels in whose last layer is body.{last}"
            )
        act_type = "prelu" if "body.1.weight" in sizes else "leakyrelu"
        return srvgg_shape(base.scale_of_channels(num_out), last // 2 - 1, num_feat, act_type)

    def pair_shape(self, values: Sequence[GraphValue]) -> base.Shape:
        first = self.find_first_convolution(values)
        scales = [int(each.numbers[0]) for each in values if each.kind == "shuffle"]
        slopes = [each.numbers for each in values if each.kind in ("relu", "prelu")]
        if not scales or not slopes:
            raise base.UnknownArchitecture(
                f"{values[0].layer}: a compact network has a pixel shuffle, and at least two "
                "convolutions with an activation between them"
            )
        act_type = {(): "prelu", (0.0,): "relu"}.get(slopes[0], "leakyrelu")
        return srvgg_shape(scales[0], count_convolutions(values) - 2, first.channels, act_type)

    def pair_graph(self, shape: base.Shape, values: Sequence[GraphValue]) -> Pattern:
        scale, features = base.whole(shape, "upscale"), base.whole(shape, "num_feat")
        slope = {"prelu": None, "relu": 0.0, "leakyrelu": LEAK}[str(shape["act_type"])]
        x = picture = Pattern("input")
        last = 2 * base.whole(shape, "num_conv") + 2
        for index in range(0, last, 2):
            x = activate(convolve(x, f"body.{index}", features), slope, f"body.{index + 1}")
        x = convolve(x, f"body.{last}", 3 * scale**2)
        return add(Pattern("shuffle", (x,), (scale,)), Pattern("enlargement", (picture,), (scale,)))

    def radius_px(self, shape: base.Shape) -> int:
        """Return 1 for each convolution."""
        return base.whole(shape, "num_conv") + 2
