"""Steps: one convolution with what follows it, as a value that a launcher runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from upscaled_models.backends.cuda.layout import PLANE_CHANNELS, Grid, pack_weights

COLUMNS: Final = (1, 4, 6, 8)
"""How many columns of 8 output channels the kernel can compute."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution on the device. weights: see `pack_weights`. bias, slope: float32 `[O]`, O
    filled up with zeros to what the kernel makes; a negative result is multiplied by its slope.
    """

    weights: Tensor
    bias: Tensor
    slope: Tensor

    @property
    def columns(self) -> int:
        return self.weights.shape[2]


@dataclass(frozen=True, slots=True)
class Step:
    """`leak(conv(sources) + bias) * gain + residual * residual_gain + shortcut * shortcut_gain`.

    sources: planes, one after the other as channels; at most two, the first of whole chunks. grid:
    of the result. planes, trunk, picture: where it goes, rounded to 16 bits, in float32, and in
    float32 as `[N, channels, h, w]`; each that is not None. `gain` counts only with a residual.
    is_doubled: the sources, of half the size, are read as if each pixel were 2x2.
    """

    layer: Layer
    sources: tuple[Tensor, ...]
    grid: Grid
    planes: Tensor | None = None
    trunk: Tensor | None = None
    picture: Tensor | None = None
    residual: Tensor | None = None
    shortcut: Tensor | None = None
    gain: float = 1.0
    residual_gain: float = 1.0
    shortcut_gain: float = 1.0
    is_doubled: bool = False


Launcher = Callable[[Step], None]
"""Runs a step behind those before it."""


def make_layer(
    convolution: nn.Conv2d,
    dtype: torch.dtype,
    device: torch.device,
    slope: float | Tensor = 1.0,
) -> Layer:
    """Pack a convolution for the kernel; `slope` 1 leaves its results as they are."""
    outputs = convolution.out_channels
    columns = min(each for each in COLUMNS if each * PLANE_CHANNELS >= outputs)
    filled = columns * PLANE_CHANNELS
    weight = convolution.weight.new_zeros((filled, *convolution.weight.shape[1:]))
    weight[:outputs] = convolution.weight.detach()
    bias = weight.new_zeros(filled)
    if convolution.bias is not None:
        bias[:outputs] = convolution.bias.detach()
    slopes = weight.new_ones(filled)
    slopes[:outputs] = slope
    return Layer(
        pack_weights(weight.float(), dtype).to(device),
        bias.float().to(device),
        slopes.float().to(device),
    )
