"""SPAN: six blocks of convolutions that weigh their own result (Wan et al., arXiv:2311.12770)."""

from collections.abc import Collection
from typing import Final

from upscaled_models.families.base import (
    NetworkFamily,
    Shape,
    Sizes,
    UnknownArchitecture,
    convolution_size,
    scale_of_channels,
)

BLOCKS: Final = 6

RADIUS_PX: Final = 3 * BLOCKS + 3
"""Three convolutions in each block, one before, one behind, and the last."""


def span_shape(scale: int, features: int = 48) -> Shape:
    return {"scale": scale, "features": features}


class SpanFamily(NetworkFamily):
    """SPAN networks, with the parts of each convolution summed up (`networks.span.fold_state`)."""

    label = "SPAN"
    example = span_shape(scale=4)

    def recognises(self, names: Collection[str]) -> bool:
        return "block_1.c1_r.weight" in names and "conv_cat.weight" in names

    def shape_of(self, sizes: Sizes) -> Shape:
        features, num_in, *_ = convolution_size(sizes, "conv_1.weight")
        num_out, *_ = convolution_size(sizes, "upsampler.0.weight")
        if num_in != 3:
            raise UnknownArchitecture(f"a SPAN network of {num_in} channels in")
        return span_shape(scale_of_channels(num_out), features)

    def radius_px(self, shape: Shape) -> int:
        return RADIUS_PX
