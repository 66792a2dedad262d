"""Plain networks, the faithful models': 3x3 convolutions of the differences between pixels."""

import math
import re
from collections.abc import Collection
from typing import ClassVar, Final

from upscaled_models.families import base

LIMIT: Final = 16.0
"""A difference beyond 1/16 of the range (16 levels of 255) saturates the limited view."""

SLOPE: Final = 0.1
"""Slope of LeakyReLU below 0."""

_BODY: Final = re.compile(r"body\.(\d+)\.weight")


FOLDS: Final = (1, 2)

DIFFERENCE_CHANNELS: Final = 12


def plain_shape(scale: int, layers: int, features: int, fold: int = 1) -> base.Shape:
    """Return a shape; without folding it has no `fold`, as in records of earlier versions."""
    shape = {"features": features, "layers": layers, "scale": scale}
    return shape if fold == 1 else {**shape, "fold": fold}


class PlainFamily(base.NetworkFamily):
    """Networks of `layers + 2` convolutions; the bilinearly enlarged input is added.

    `fold` 2 makes squares of 2x2 pixels channels first: at scale 2 for a quarter of the time.
    """

    label = "plain"
    example = plain_shape(scale=4, layers=1, features=1)
    counts = ("layers",)
    optional: ClassVar[base.Shape] = {"fold": 1}
    is_quantisable = True
    tuning_rate = 0.01

    def check_shape(self, shape: base.Shape) -> None:
        super().check_shape(shape)
        if self.fold(shape) not in FOLDS:
            raise ValueError(f"cannot have fold {self.fold(shape)}")

    def recognises(self, names: Collection[str]) -> bool:
        return "head.weight" in names and "tail.weight" in names

    def shape_of(self, sizes: base.Sizes) -> base.Shape:
        features, num_in, *_ = base.convolution_size(sizes, "head.weight")
        num_out, *_ = base.convolution_size(sizes, "tail.weight")
        fold, scale = math.isqrt(num_in // DIFFERENCE_CHANNELS), base.scale_of_channels(num_out)
        if fold < 1 or num_in != DIFFERENCE_CHANNELS * fold**2 or scale % fold:
            raise base.UnknownArchitecture(
                f"a plain network of {num_in} channels in and {num_out} out"
            )
        return plain_shape(scale // fold, len(base.numbers_in(sizes, _BODY)), features, fold)

    def fold(self, shape: base.Shape) -> int:
        return base.whole(shape, "fold", default=1)

    def radius_px(self, shape: base.Shape) -> int:
        """Return 1 trunk pixel for each convolution and, for any fold, 1 for differences."""
        return (base.whole(shape, "layers") + 3) * self.fold(shape)

    def window_px(self, shape: base.Shape, *, is_cuda: bool, is_tuned: bool) -> int:
        """Return a side with as many trunk pixels as without folding."""
        return self.fold(shape) * super().window_px(shape, is_cuda=is_cuda, is_tuned=is_tuned)

    def cuda_bytes_per_px(self, shape: base.Shape) -> int:
        """Estimate by trunk pixels: each has as many features, and results, as without folding."""
        return super().cuda_bytes_per_px(shape) // self.fold(shape) ** 2
