"""RealPLKSR: blocks with a large kernel on part of their channels, after PLKSR (arXiv:2404.11848).

The community's form (neosr, traiNNer-redux): channel mixers of two convolutions with Mish between,
one normalisation a block, and a pixel shuffle or DySample (arXiv:2308.15085) at the end. Attribute
names are those of the weight files.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS, convolve, shuffle_order
from upscaled_models.backends.openvino.runtime import Node, import_openvino
from upscaled_models.families import Shape
from upscaled_models.families.realplksr import GROUP_EPSILON, GROUPS, LAYER_EPSILON


class LayerNorm(nn.Module):
    """Normalise the channels of each pixel by themselves to mean 0 and variance 1."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, features, h, w] to the same shape."""
        centred = x - x.mean(1, keepdim=True)
        normalised = centred / (centred.square().mean(1, keepdim=True) + LAYER_EPSILON).sqrt()
        return normalised * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class LargeKernel(nn.Module):
    """A wide convolution over the first channels; the others pass unchanged."""

    def __init__(self, features: int, kernel_px: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, features, kernel_px, padding=kernel_px // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape; overwritten where no gradient needs it."""
        seen = self.conv.in_channels
        wide = self.conv(x[:, :seen])
        if torch.is_grad_enabled():
            return torch.cat((wide, x[:, seen:]), dim=1)
        x[:, :seen] = wide
        return x


class Attention(nn.Module):
    """Multiply each value by a factor in 0..1 that a convolution makes of its surroundings."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.f = nn.ModuleList([_conv(features, features)])

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.f[0](x))


class Block(nn.Module):
    """Channel mixer, large kernel, attention, 1x1 convolution, and the block's input added."""

    def __init__(
        self, features: int, kernel_px: int, wide_features: int, norm: str, attention: str
    ) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(features) if norm == "layer" else nn.Identity()
        mixer = (_conv(features, 2 * features), nn.Mish(), _conv(2 * features, features))
        self.channel_mixer = nn.Sequential(*mixer)
        self.lk = LargeKernel(wide_features, kernel_px)
        self.attn = Attention(features) if attention == "yes" else nn.Identity()
        self.refine = nn.Conv2d(features, features, kernel_size=1)
        self.norm = nn.GroupNorm(GROUPS, features) if norm == "group" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, features, h, w] to the same shape and dtype; convolutions run in the weights'."""
        y = x
        if isinstance(self.layer_norm, LayerNorm):
            y = self.layer_norm(x)
        y = self.channel_mixer(y.to(self.refine.weight.dtype))
        y = self.refine(self.attn(self.lk(y))).to(x.dtype)
        if isinstance(self.norm, nn.GroupNorm):
            weight, bias = self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype)
            y = F.group_norm(y, GROUPS, weight, bias, GROUP_EPSILON)
        return x + y


class DySample(nn.Module):
    """Enlarges by sampling `[N, 3 * scale^2, h, w]` at points that it computes from its input.

    All of it keeps the input's own precision: a coordinate in a wide window needs more than 8 bits.
    """

    init_pos: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.groups = 4 if scale % 2 == 0 else 3
        channels, points = 3 * scale**2, 2 * self.groups * scale**2
        self.offset = nn.Conv2d(channels, points, kernel_size=1)
        self.scope = nn.Conv2d(channels, points, kernel_size=1, bias=False)
        self.end_conv = nn.Conv2d(channels, 3, kernel_size=1) if scale > 1 else None
        steps = (torch.arange(scale) - (scale - 1) / 2) / scale
        down, across = torch.meshgrid(steps, steps, indexing="ij")
        start = torch.stack((across, down)).reshape(2, 1, -1)
        self.register_buffer("init_pos", start.repeat(1, self.groups, 1).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3 * scale^2, h, w] to [N, 3, h * scale, w * scale]."""
        count, _, height, width = x.shape
        offset = _run_in(x, self.offset) * _run_in(x, self.scope).sigmoid() * 0.5
        offset = (offset + self.init_pos.to(x.dtype)).view(count, 2, -1, height, width)
        rows = torch.arange(height, dtype=x.dtype, device=x.device).view(1, 1, height, 1) + 0.5
        columns = torch.arange(width, dtype=x.dtype, device=x.device).view(1, 1, 1, width) + 0.5
        across = 2 * (columns + offset[:, 0]) / width - 1
        down = 2 * (rows + offset[:, 1]) / height - 1
        points = torch.stack([self._spread(each) for each in (across, down)], dim=-1)
        parts = x.reshape(count * self.groups, -1, height, width)
        sampled = F.grid_sample(
            parts, points, mode="bilinear", align_corners=False, padding_mode="border"
        ).view(count, -1, height * self.scale, width * self.scale)
        return sampled if self.end_conv is None else _run_in(sampled, self.end_conv)

    def _spread(self, points: Tensor) -> Tensor:
        """Map [N, groups * scale^2, h, w] to [N * groups, h * scale, w * scale]."""
        return F.pixel_shuffle(points, self.scale).flatten(0, 1)


class RealPLKSR(nn.Module):
    """A convolution, `blocks` blocks, a convolution, and the nearest-neighbour picture added.

    features: a multiple of 4 with group normalisation. kernel_px: side of the large kernels, odd.
    wide_features: the channels they work on. norm: "group" (of the whole picture that is read: a
    smaller window has another result) or "layer". attention: "yes" or "no". upsampler:
    "pixelshuffle" or "dysample".
    """

    def __init__(
        self,
        scale: int,
        features: int,
        blocks: int,
        kernel_px: int,
        wide_features: int,
        norm: str,
        attention: str,
        upsampler: str,
    ) -> None:
        super().__init__()
        self.scale = scale
        body = (Block(features, kernel_px, wide_features, norm, attention) for _ in range(blocks))
        last = _conv(features, 3 * scale**2)
        # The published list has a dropout, which has no weights, before the last convolution.
        self.feats = nn.ModuleList([_conv(3, features), *body, nn.Identity(), last])
        self.to_img = DySample(scale) if upsampler == "dysample" else nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, h, w] floats in 0..1 to [N, 3, h * scale, w * scale], about 0..1, not clamped.

        The sum over the blocks keeps the input's precision; convolutions run in the weights'.
        """
        first, *blocks, _, last = self.feats
        dtype = next(last.parameters()).dtype
        features = first(x.to(dtype)).to(x.dtype)
        for block in blocks:
            features = block(features)
        residual = last(features.to(dtype)).to(x.dtype)
        enlarged: Tensor = self.to_img(residual + x.repeat_interleave(self.scale**2, dim=1))
        return enlarged


def build_graph(x: Node, shape: Shape, layers: Layers) -> Node:
    """Build the network but for its pixel shuffle and the enlarged picture."""
    ops = import_openvino().opset15
    features = convolve(x, layers.convolutions["feats.0"], input_gain=LEVELS)
    blocks = int(shape["blocks"])
    for number in range(1, blocks + 1):
        features = ops.add(features, _build_residual(features, f"feats.{number}", shape, layers))
    order = shuffle_order(int(shape["scale"]))
    last = layers.convolutions[f"feats.{blocks + 2}"]
    return convolve(features, last, output_gain=LEVELS, order=order)


def _build_residual(x: Node, name: str, shape: Shape, layers: Layers) -> Node:
    """Build the sum's other term: a block without its input."""
    ops = import_openvino().opset15
    convolutions, constants = layers.convolutions, layers.constants
    if shape["norm"] == "layer":
        x = ops.mvn(x, ops.constant(np.array([1])), True, LAYER_EPSILON, "inside_sqrt")
        x = ops.multiply(x, constants[f"{name}.layer_norm.weight"].reshape(1, -1, 1, 1))
        x = ops.add(x, constants[f"{name}.layer_norm.bias"].reshape(1, -1, 1, 1))
    y = ops.mish(convolve(x, convolutions[f"{name}.channel_mixer.0"]))
    y = convolve(y, convolutions[f"{name}.channel_mixer.2"])
    wide = int(shape["wide_features"])
    rest = int(shape["features"]) - wide
    large = convolutions[f"{name}.lk.conv"]
    if rest:
        parts = ops.variadic_split(y, 1, [wide, rest])
        y = ops.concat([convolve(parts.output(0), large), parts.output(1)], 1)
    else:
        y = convolve(y, large)
    if shape["attention"] == "yes":
        y = ops.multiply(y, ops.sigmoid(convolve(y, convolutions[f"{name}.attn.f.0"])))
    y = convolve(y, convolutions[f"{name}.refine"])
    if shape["norm"] == "group":
        weight, bias = constants[f"{name}.norm.weight"], constants[f"{name}.norm.bias"]
        y = ops.group_normalization(y, weight, bias, GROUPS, GROUP_EPSILON)
    return y


def _run_in(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Run a 1x1 convolution in the dtype of `x` instead of that of its weights."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.conv2d(x, layer.weight.to(x.dtype), bias)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
