"""The faithful models' network: plain 3x3 convolutions that leave flat colour exactly as it is.

Their input is the differences between neighbouring pixels alone, and they have no biases;
LeakyReLU maps 0 to 0. So an area of one colour has a residual of exactly zero in every precision.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscaled_models.backends.cuda.step import KernelModule, KernelNetwork, Stack, Target
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS, shuffle_order
from upscaled_models.backends.openvino.runtime import Node, import_openvino
from upscaled_models.families import Shape
from upscaled_models.families.plain import DIFFERENCE_CHANNELS, LIMIT, SLOPE
from upscaled_models.networks.chain import Chain, Link


class PlainNet(KernelModule):
    """A plain convolutional upscaler: `12-F-...-F-(3*scale^2)`, pixel shuffle, bilinear skip.

    `features` is F, `layers` the number of F-to-F convolutions: an output pixel depends on input
    pixels at most `(layers + 3) * fold` away. `fold` 2 turns squares of 2x2 pixels into channels
    first (`48-F-...-F-(12*scale^2)`): both sides must be multiples of it.
    """

    def __init__(self, features: int, layers: int, scale: int, fold: int = 1) -> None:
        super().__init__()
        self.features, self.layers, self.scale, self.fold = features, layers, scale, fold
        self.head = _convolution(DIFFERENCE_CHANNELS * fold**2, features)
        self.body = nn.ModuleList(_convolution(features, features) for _ in range(layers))
        self.tail = _convolution(features, 3 * (scale * fold) ** 2)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, 3, h, w]` in 0..1 to `[N, 3, h*scale, w*scale]`, not clamped.

        Differences and skip keep the input's precision; convolutions run in that of the weights.
        """
        z = folded_differences(x, self.fold).to(self.head.weight.dtype)
        z = F.leaky_relu(self.head(z), SLOPE, inplace=True)
        for convolution in self.body:
            z = F.leaky_relu(convolution(z), SLOPE, inplace=True)
        residual = F.pixel_shuffle(self.tail(z).to(x.dtype), self.scale * self.fold)
        skip = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return skip + residual

    def to_kernel(self, target: Target) -> KernelNetwork:
        layers = [target.pack(each, SLOPE) for each in (self.head, *self.body)]
        stack = Stack((*layers, target.pack(self.tail)), self.tail.out_channels, target)
        scale, fold = self.scale, self.fold

        def run(pixels: Tensor) -> Tensor:
            skip = F.interpolate(pixels, scale_factor=scale, mode="bilinear", align_corners=False)
            residual = stack(folded_differences(pixels, fold))
            return F.pixel_shuffle(residual, scale * fold).add_(skip)

        return run

    @torch.no_grad()
    def _initialise(self) -> None:
        """Start near the identity: deep plain stacks then train as fast as residual ones."""
        every = torch.arange(self.features)
        for weight in self.body.parameters():
            nn.init.kaiming_normal_(weight, a=SLOPE)
            weight.mul_(0.5)
            weight[every, every, 1, 1] += 0.8
        self.tail.weight.mul_(0.1)


def build_graph(x: Node, shape: Shape, layers: Layers) -> Node:
    """Build the network but for its pixel shuffle and the enlarged picture."""
    return build_chain(shape, layers).build(x)


def build_chain(shape: Shape, layers: Layers) -> Chain:
    """Return the same as a chain of convolutions."""
    fold = int(shape.get("fold", 1))
    names = ["head", *(f"body.{index}" for index in range(int(shape["layers"])))]
    links = [
        Link(layers.convolutions[name], SLOPE, input_gain=LEVELS if name == "head" else 1.0)
        for name in names
    ]
    order = shuffle_order(int(shape["scale"]) * fold)
    end = Link(layers.convolutions["tail"], None, output_gain=LEVELS, order=order)
    return Chain(lambda x: _prepare(x, fold), (*links, end), rows_below=1, fold=fold)


def _prepare(x: Node, fold: int) -> Node:
    """Add differences, plain and limited, of squares of `fold` x `fold` pixels."""
    ops = import_openvino().opset15
    steps = _graph_differences(x)
    if fold > 1:
        steps = ops.space_to_depth(steps, "depth_first", fold)
    limited = ops.clamp(ops.multiply(steps, np.float32(LIMIT)), -float(LEVELS), float(LEVELS))
    return ops.concat([steps, limited], 1)


def _graph_differences(x: Node) -> Node:
    """Build the first half of `differences`; of whole levels, so exact in any precision."""
    ops = import_openvino().opset15
    end = np.iinfo(np.int64).max
    padded = ops.pad(x, [0, 0, 0, 0], [0, 0, 1, 1], "edge")
    across = ops.slice(padded, [0, 1], [-1, end], [1, 1], [2, 3])
    down = ops.slice(padded, [1, 0], [end, -1], [1, 1], [2, 3])
    return ops.concat([ops.subtract(across, x), ops.subtract(down, x)], 1)


def differences(x: Tensor) -> Tensor:
    """Return the steps to the next pixel right and below, plain and limited: `[N, 12, h, w]`.

    Without biases twice the contrast would give twice the residual. `clamp(16 * step, -1, 1)` lets
    the network depend on how large a step is, and keeps small steps distinct in 8 bits. Behind the
    last row and column steps are 0.
    """
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    across = padded[..., :-1, 1:] - x
    down = padded[..., 1:, :-1] - x
    steps = torch.cat([across, down], dim=1)
    return torch.cat([steps, (steps * LIMIT).clamp(-1.0, 1.0)], dim=1)


def folded_differences(x: Tensor, fold: int) -> Tensor:
    """Return the differences, with squares of `fold` x `fold` pixels as channels.

    Channel `(c * fold + row) * fold + column` is difference c at that place of the square.
    """
    return differences(x) if fold == 1 else F.pixel_unshuffle(differences(x), fold)


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
