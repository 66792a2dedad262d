"""RRDBNet: the large network of ESRGAN and Real-ESRGAN (arXiv:1809.00219, 2107.10833).

Attribute names are those of the published weight files.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.backends.cuda.step import KernelModule, Target
from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE, fold_of
from upscaled_models.networks.rrdb_kernel import KernelRrdb
from upscaled_models.networks.strips import plan_strips

_LEAKY: Final = ("conv1", "conv2", "conv3", "conv4", "conv_up1", "conv_up2", "conv_hr")
"""Convolutions that LeakyReLU follows."""


class ResidualDenseBlock(nn.Module):
    """Five 3x3 convolutions, each seeing the block's input and all earlier outputs."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.conv1 = _conv(num_feat, num_grow_ch)
        self.conv2 = _conv(num_feat + num_grow_ch, num_grow_ch)
        self.conv3 = _conv(num_feat + 2 * num_grow_ch, num_grow_ch)
        self.conv4 = _conv(num_feat + 3 * num_grow_ch, num_grow_ch)
        self.conv5 = _conv(num_feat + 4 * num_grow_ch, num_feat)

    def forward(self, x: Tensor, buffer: Tensor | None = None) -> Tensor:
        """Map [N, num_feat, h, w] to the same shape.

        Args:
            buffer: [N, num_feat + 4 * num_grow_ch, h, w], overwritten: every convolution reads a
                front part and writes behind it. Without it outputs are joined anew, for gradients.
        """
        residual = self._join(x) if buffer is None else self._fill(x, buffer)
        return residual.to(x.dtype).mul_(RESIDUAL_SCALE).add_(x)

    def _fill(self, x: Tensor, buffer: Tensor) -> Tensor:
        seen = x.shape[1]
        buffer[:, :seen] = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            behind = buffer[:, seen : seen + conv.out_channels]
            torch.ops.aten.leaky_relu.out(conv(buffer[:, :seen]), LEAK, out=behind)
            seen += conv.out_channels
        residual: Tensor = self.conv5(buffer)
        return residual

    def _join(self, x: Tensor) -> Tensor:
        seen = x.to(self.conv1.weight.dtype)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            grown = F.leaky_relu(conv(seen), LEAK)
            seen = torch.cat((seen, grown), dim=1)
        residual: Tensor = self.conv5(seen)
        return residual


class ResidualInResidual(nn.Module):
    """Three dense blocks inside one more residual."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor, buffer: Tensor | None = None) -> Tensor:
        """Map [N, num_feat, h, w] to the same shape. `buffer`: see `ResidualDenseBlock`."""
        residual: Tensor = self.rdb3(self.rdb2(self.rdb1(x, buffer), buffer), buffer)
        return residual.mul_(RESIDUAL_SCALE).add_(x)


class RRDBNet(KernelModule):
    """A trunk of `num_block` residual dense blocks, then two nearest-neighbour doublings.

    The trunk runs at a quarter of the output's side: scale 2 and 1 first fold 2x2 or 4x4 pixels
    into channels, so that both sides must be multiples of 2 or 4.
    """

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        scale: int,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"RRDBNet has scale 1, 2 or 4, not {scale}")
        self.fold = fold_of(scale)
        self.num_grow_ch = num_grow_ch
        self.conv_first = _conv(num_in_ch * self.fold**2, num_feat)
        blocks = (ResidualInResidual(num_feat, num_grow_ch) for _ in range(num_block))
        self.body = nn.Sequential(*blocks)
        self.conv_body = _conv(num_feat, num_feat)
        self.conv_up1 = _conv(num_feat, num_feat)
        self.conv_up2 = _conv(num_feat, num_feat)
        self.conv_hr = _conv(num_feat, num_feat)
        self.conv_last = _conv(num_feat, num_out_ch)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, h, w] floats in 0..1 to [N, 3, h * scale, w * scale], about 0..1, not clamped.

        The trunk, a sum of small residuals, keeps the input's precision; convolutions run in the
        weights': bfloat16 rounds each residual once, and never the sum.
        """
        if self.fold > 1:
            x = F.pixel_unshuffle(x, self.fold)
        dtype = self.conv_first.weight.dtype
        shallow = self.conv_first(x.to(dtype))
        buffer = None if torch.is_grad_enabled() else self._make_buffer(shallow)
        features = shallow.to(x.dtype)
        for block in self.body:
            features = block(features, buffer)
        features = shallow + self.conv_body(features.to(dtype))
        del buffer
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._enlarge(features).to(x.dtype)
        return self._enlarge_in_strips(features, x.dtype)

    def to_kernel(self, target: Target) -> KernelRrdb:
        layers = {
            name: target.pack(layer, LEAK if name.rpartition(".")[2] in _LEAKY else 1.0)
            for name, layer in self.named_modules()
            if isinstance(layer, nn.Conv2d)
        }
        return KernelRrdb(layers, len(self.body), self.fold, target)

    def _enlarge(self, features: Tensor) -> Tensor:
        """Run the tail: features `[N, num_feat, h, w]` -> `[N, num_out_ch, 4h, 4w]`."""
        for conv in (self.conv_up1, self.conv_up2):
            doubled = F.interpolate(features, scale_factor=2, mode="nearest")
            features = F.leaky_relu(conv(doubled), LEAK, inplace=True)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(features), LEAK, inplace=True))
        return out

    def _enlarge_in_strips(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """Run the tail a few rows at a time: of 512x512 it would take 2 GB of a computer's memory.

        A GPU has that memory, and small parts would slow it down.
        """
        count, _, height, width = features.shape
        rows, strips = plan_strips(height, width)
        if len(strips) == 1:
            return self._enlarge(features).to(dtype)
        channels = self.conv_last.out_channels
        result = features.new_empty((count, channels, 4 * height, 4 * width), dtype=dtype)
        for strip in strips:
            made = self._enlarge(features[:, :, strip.start : strip.start + rows])
            above = strip.first - strip.start
            kept = made[:, :, 4 * above : 4 * (above + strip.last - strip.first)]
            result[:, :, 4 * strip.first : 4 * strip.last] = kept
        return result

    def _make_buffer(self, shallow: Tensor) -> Tensor:
        """Allocate one buffer for all blocks, which run in sequence: fresh memory is slow."""
        count, channels, height, width = shallow.shape
        is_last = shallow.is_contiguous(memory_format=torch.channels_last)
        return torch.empty(
            (count, channels + 4 * self.num_grow_ch, height, width),
            dtype=shallow.dtype,
            device=shallow.device,
            memory_format=torch.channels_last if is_last else torch.contiguous_format,
        )


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
