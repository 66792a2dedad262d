"""Plain networks, the default models': 3x3 convolutions of the differences between pixels."""

import re
from collections.abc import Collection
from typing import Final

from upscaled_models.families.base import (
    NetworkFamily,
    Shape,
    Sizes,
    convolution_size,
    numbers_in,
    scale_of_channels,
    whole,
)

LIMIT: Final = 16.0
"""A difference beyond 1/16 of the range (16 levels of 255) saturates the limited view."""

SLOPE: Final = 0.1
"""Slope of LeakyReLU below 0."""

_BODY: Final = re.compile(r"body\.(\d+)\.weight")


def plain_shape(scale: int, layers: int, features: int) -> Shape:
    return {"features": features, "layers": layers, "scale": scale}


class PlainFamily(NetworkFamily):
    """Networks of `layers + 2` convolutions; the bilinearly enlarged input is added."""

    label = "plain"
    example = plain_shape(scale=4, layers=1, features=1)
    counts = ("layers",)
    is_quantisable = True
    tuning_rate = 0.01

    def recognises(self, names: Collection[str]) -> bool:
        return "head.weight" in names and "tail.weight" in names

    def shape_of(self, sizes: Sizes) -> Shape:
        features, *_ = convolution_size(sizes, "head.weight")
        num_out, *_ = convolution_size(sizes, "tail.weight")
        return plain_shape(scale_of_channels(num_out), len(numbers_in(sizes, _BODY)), features)

    def radius_px(self, shape: Shape) -> int:
        """Return 1 for each convolution and 1 for the difference to the next pixel."""
        return whole(shape, "layers") + 3
