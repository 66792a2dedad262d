"""RealPLKSR: blocks with a large kernel on part of their channels (after arXiv:2404.11848)."""

import re
from collections.abc import Collection
from typing import ClassVar, Final

from upscaled_models.families import base

MAX_KERNEL_PX: Final = 63
"""The published networks have 13 and 17."""

GROUPS: Final = 4
"""Groups of the group normalisation: a file does not hold them, every training code has 4."""

GROUP_EPSILON: Final = 1e-5
LAYER_EPSILON: Final = 1e-6

HALO_PX: Final = 48
"""Halo in input pixels: a trade, not exact, for networks of many blocks.

With 28 blocks and kernels of 17 px an output pixel's convolutions reach 310 px. With random weights
that add 20 levels (root mean square) to the enlarged picture, a tile of 48 px in 256x256 is off
from the whole by so many levels, largest and mean:

    halo                     16             32             48             64
    layer normalisation      14, 1.0        0.9, 0.04      0.02, 0.001    0, 0
    group normalisation      77, 12         66, 10         48, 7          25, 4

Trained weights look farther, hence 48. Group normalisation takes means and variances of all that
the network reads, so only a wider window helps; a trained network's tiles were not measured.
"""

_PART: Final = re.compile(r"feats\.(\d+)\..+")


def realplksr_shape(
    scale: int,
    features: int = 64,
    blocks: int = 28,
    kernel_px: int = 17,
    wide_features: int = 16,
    norm: str = "group",
    attention: str = "yes",
    upsampler: str = "pixelshuffle",
) -> base.Shape:
    return {
        "scale": scale,
        "features": features,
        "blocks": blocks,
        "kernel_px": kernel_px,
        "wide_features": wide_features,
        "norm": norm,
        "attention": attention,
        "upsampler": upsampler,
    }


class RealPlksrFamily(base.NetworkFamily):
    """RealPLKSR networks; each input pixel, repeated, is added before the upsampling.

    A pixel costs 0.4 of x4plus: windows of 512 px take about 9 s in bfloat16 on two cores. Group
    normalisation gains from windows as wide as can be waited for.
    """

    label = "RealPLKSR"
    example = realplksr_shape(scale=4)
    words: ClassVar = {
        "norm": ("group", "layer"),
        "attention": ("yes", "no"),
        "upsampler": ("pixelshuffle", "dysample"),
    }

    def check_shape(self, shape: base.Shape) -> None:
        super().check_shape(shape)
        features, wide = base.whole(shape, "features"), base.whole(shape, "wide_features")
        kernel_px = base.whole(shape, "kernel_px")
        if wide > features:
            raise ValueError(f"cannot have wide_features {wide} of {features} features")
        if kernel_px % 2 == 0 or kernel_px > MAX_KERNEL_PX:
            raise ValueError(f"cannot have kernel_px {kernel_px}")
        if shape["norm"] == "group" and features % GROUPS:
            raise ValueError(f"cannot have {features} features in {GROUPS} groups")

    def recognises(self, names: Collection[str]) -> bool:
        return "feats.1.channel_mixer.0.weight" in names

    def shape_of(self, sizes: base.Sizes) -> base.Shape:
        """Read the shape; the last of `feats` is a convolution behind a dropout."""
        features, num_in, *_ = base.convolution_size(sizes, "feats.0.weight")
        last = max(base.numbers_in(sizes, _PART))
        num_out, *_ = base.convolution_size(sizes, f"feats.{last}.weight")
        wide_features, _, kernel_px, _ = base.convolution_size(sizes, "feats.1.lk.conv.weight")
        if num_in != 3 or last < 3:
            raise base.UnknownArchitecture(
                f"a RealPLKSR network of {num_in} channels in whose last layer is feats.{last}"
            )
        return realplksr_shape(
            base.scale_of_channels(num_out),
            features,
            last - 2,
            kernel_px,
            wide_features,
            norm="layer" if "feats.1.layer_norm.weight" in sizes else "group",
            attention="yes" if "feats.1.attn.f.0.weight" in sizes else "no",
            upsampler="dysample" if "to_img.offset.weight" in sizes else "pixelshuffle",
        )

    def has_graph(self, shape: base.Shape) -> bool:
        """Return whether its upsampler is not DySample, which reads pixels anywhere."""
        return shape["upsampler"] != "dysample"

    def radius_px(self, shape: base.Shape) -> int:
        """Return what the convolutions see, and one pixel for DySample, which may look farther."""
        block_px = 2 + base.whole(shape, "kernel_px") // 2 + (shape["attention"] == "yes")
        return base.whole(shape, "blocks") * block_px + 2 + (shape["upsampler"] == "dysample")

    def halo_px(self, shape: base.Shape) -> int:
        return min(self.radius_px(shape), HALO_PX)
