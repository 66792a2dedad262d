"""Steps: one convolution and the operations after it, as a value that a launcher runs.

A network on the kernel has the layers, inputs and results of its torch module.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upscaled_models.backends.cuda.layout import (
    PLANE_CHANNELS,
    PlaneLayout,
    make_planes,
    pack_weights,
    to_planes,
)
from upscaled_models.backends.cuda.tiling import COLUMNS


@dataclass(frozen=True, slots=True)
class KernelLayer:
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
class KernelStep:
    """A convolution, and what is added to it.

    `leak(conv(sources) + bias) * gain + residual * residual_gain + shortcut * shortcut_gain`

    sources: planes, one after the other as channels; at most two, the first of whole chunks.
    layout: of the result. planes, trunk, picture: where it goes, rounded to 16 bits, in float32,
    and in float32 as `[N, channels, h, w]`; each that is not None. `gain` counts only with a
    residual.
    is_doubled: the sources, of half the size, are read as if each pixel were 2x2.
    """

    layer: KernelLayer
    sources: tuple[Tensor, ...]
    layout: PlaneLayout
    planes: Tensor | None = None
    trunk: Tensor | None = None
    picture: Tensor | None = None
    residual: Tensor | None = None
    shortcut: Tensor | None = None
    gain: float = 1.0
    residual_gain: float = 1.0
    shortcut_gain: float = 1.0
    is_doubled: bool = False


Launcher = Callable[[KernelStep], None]
"""Runs a step behind those before it."""


KernelNetwork = Callable[[Tensor], Tensor]
"""A network that runs as steps."""


@dataclass(frozen=True, slots=True)
class Target:
    """The device that layers are packed for, in a 16-bit type, and the launcher of its steps."""

    dtype: torch.dtype
    device: torch.device
    launch: Launcher

    def pack(self, convolution: nn.Conv2d, slope: float | Tensor = 1.0) -> KernelLayer:
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
        return KernelLayer(
            pack_weights(weight.float(), self.dtype).to(self.device),
            bias.float().to(self.device),
            slopes.float().to(self.device),
        )


class KernelModule(nn.Module):
    """Network that the kernel can run too. fold: its input's pixels per trunk pixel and side."""

    fold: int = 1

    def to_kernel(self, target: Target) -> KernelNetwork:
        """Pack the network's layers, which are on the CPU in float32 and are not kept."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers one after the other at one size; the last one's result is float32."""

    layers: tuple[KernelLayer, ...]
    channels_out: int
    target: Target

    def __call__(self, pixels: Tensor) -> Tensor:
        """Run the layers: `[N, C, h, w]` to `[N, channels_out, h, w]`."""
        count, _, height, width = pixels.shape
        layout, device = PlaneLayout(height, width), pixels.device
        source = to_planes(pixels, layout, self.target.dtype)
        *inner, last = self.layers
        channels = inner[0].columns * PLANE_CHANNELS
        planes = [make_planes(count, channels, layout, self.target.dtype, device) for _ in range(2)]
        for index, layer in enumerate(inner):
            self.target.launch(KernelStep(layer, (source,), layout, planes=planes[index % 2]))
            source = planes[index % 2]
        picture = torch.empty((count, self.channels_out, height, width), device=device)
        self.target.launch(KernelStep(last, (source,), layout, picture=picture))
        return picture
