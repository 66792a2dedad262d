"""Equalise compact and plain networks, and simulate their 8-bit convolutions in torch to tune them.

All channels of an activation share one 8-bit range, so a small channel would get few levels. PReLU
and LeakyReLU let a positive factor through, so the next convolution can undo it (Nagel et al.,
arXiv:1906.04721; SmoothQuant, arXiv:2211.10438). Simulated convolutions compute what OpenVINO does
with the same numbers, but for the order of additions.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscaled_models.backends.openvino.layers import Convolution, Floats, Layers, Quantisation
from upscaled_models.quantise.rounding import WEIGHT_LIMIT

LAST_LEVEL: Final = 255
ZERO_OF_SYMMETRIC: Final = 128
SAMPLES: Final = 20_000
SHRINKS: Final = tuple(float(shrink) for shrink in np.geomspace(1.0, 0.1, 24))


class InputGrid(nn.Module):
    """The 256 levels of a convolution's input, as many below 0 as above if it `is_symmetric`."""

    def __init__(self, is_symmetric: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.zero: Tensor
        self.register_buffer("zero", torch.tensor(float(ZERO_OF_SYMMETRIC)))
        self.is_symmetric = is_symmetric
        self.seen: list[Tensor] = []
        self.is_watching = False
        self.least, self.most = 0.0, 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest level of each value, a whole number (0 for 0), and their step."""
        scale = self.log_scale.exp()
        levels = (_round(x / scale) + self.zero).clamp(0, LAST_LEVEL)
        return levels - self.zero, scale

    def watch(self) -> None:
        """Start taking samples, until a range is chosen."""
        self.seen, self.is_watching = [], True
        self.least = self.most = 0.0

    def observe(self, x: Tensor) -> None:
        """Take samples of an input, between `watch` and `choose_range`."""
        self.seen.append(x.flatten()[torch.randint(0, x.numel(), (SAMPLES,))])
        self.least = min(self.least, float(x.min()))
        self.most = max(self.most, float(x.max()))

    @torch.no_grad()
    def choose_range(self) -> None:
        """Choose the range with the least square error, mostly narrower than the values."""
        samples = torch.cat(self.seen or [torch.zeros(1)])
        self.seen, self.is_watching = [], False
        errors = []
        for shrink in SHRINKS:
            scale, zero = self._scale_and_zero(self.least * shrink, self.most * shrink)
            levels = ((samples / scale).round() + zero).clamp(0, LAST_LEVEL)
            error = ((levels - zero) * scale - samples).square().mean()
            errors.append((float(error), scale, zero))
        _, scale, zero = min(errors)
        self.zero.fill_(zero)
        self.log_scale.fill_(math.log(scale))

    def _scale_and_zero(self, low: float, high: float) -> tuple[float, int]:
        if self.is_symmetric and low < 0:
            zero = ZERO_OF_SYMMETRIC
            return max(-low / zero, high / (LAST_LEVEL - zero), 1e-8), zero
        scale = max((high - low) / LAST_LEVEL, 1e-8)
        return scale, round(-low / scale)

    def freeze(self) -> tuple[float, float]:
        scale, zero = float(self.log_scale.detach().exp()), float(self.zero)
        return -zero * scale, (LAST_LEVEL - zero) * scale


class SimulatedConvolution(nn.Module):
    """A 3x3 convolution whose input has 256 levels and whose weights are whole multiples.

    dtype: of the multiplications, whose factors are whole numbers up to 255: bfloat16 holds them
    exactly, though not their sums.
    """

    def __init__(self, convolution: nn.Conv2d, grid: InputGrid) -> None:
        super().__init__()
        self.out_channels = convolution.out_channels
        self.weight = nn.Parameter(convolution.weight.detach().clone())
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        widest = self.weight.detach().abs().amax((1, 2, 3)).clamp_min(1e-8)
        self.log_weight_scale = nn.Parameter((widest / WEIGHT_LIMIT).log())
        self.grid = grid
        self.dtype = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, I, h, w] to [N, O, h, w]; with unrounded weights while the grid takes samples."""
        if self.grid.is_watching:
            self.grid.observe(x.detach())
            return F.conv2d(x, self.weight, self.bias, padding=1)
        levels, scale = self.grid(x)
        weight_scale = self.log_weight_scale.exp().view(-1, 1, 1, 1)
        whole = _round(self.weight / weight_scale).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        sums = F.conv2d(levels.to(self.dtype), whole.to(self.dtype), padding=1).float()
        result: Tensor = sums * (scale * weight_scale.view(1, -1, 1, 1))
        return result if self.bias is None else result + self.bias.view(1, -1, 1, 1)

    def freeze(self) -> Convolution:
        bias = None if self.bias is None else _array(self.bias)
        weight_scale = self.log_weight_scale.detach().exp()
        whole = (self.weight.detach() / weight_scale.view(-1, 1, 1, 1)).round()
        limited = whole.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8).numpy().copy()
        return Convolution(limited, bias, Quantisation(_array(weight_scale), *self.grid.freeze()))


@torch.no_grad()
def equalise(network: nn.Module, inputs: Tensor, share: float) -> nn.Module:
    """Return an equalised copy of a network that is one chain of convolutions (compact or plain).

    Args:
        share: trade-off: 1 equalises activations, 0 the weights that read them.
        inputs: `[N, 3, h, w]` in 0..1, from which the size of each channel is measured.
    """
    network = copy.deepcopy(network)
    chain = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    sizes = _measure_channels(network, chain, inputs)
    for before, after, size in zip(chain, chain[1:], sizes[1:], strict=False):
        read = after.weight.abs().amax((0, 2, 3)).clamp_min(1e-6)
        factor = size.clamp_min(1e-6).pow(share) / read.pow(1 - share)
        factor /= factor.log().mean().exp()
        before.weight.div_(factor.view(-1, 1, 1, 1))
        if before.bias is not None:
            before.bias.div_(factor)
        after.weight.mul_(factor.view(1, -1, 1, 1))
    return network


def _measure_channels(network: nn.Module, chain: list[nn.Conv2d], inputs: Tensor) -> list[Tensor]:
    """Return the largest value of each input channel of each convolution."""
    sizes = [torch.zeros(convolution.in_channels) for convolution in chain]

    def see(at: int, read: Tensor) -> None:
        sizes[at] = torch.maximum(sizes[at], read.abs().amax((0, 2, 3)))

    watch_inputs(network, chain, (one[None] for one in inputs), see)
    return sizes


def watch_inputs(
    network: nn.Module,
    convolutions: Sequence[nn.Conv2d],
    inputs: Iterable[Tensor],
    see: Callable[[int, Tensor], None],
) -> None:
    """Run a network, and call `see` with each convolution's number and what it reads."""
    hooks = [
        convolution.register_forward_pre_hook(lambda _module, read, at=at: see(at, read[0]))
        for at, convolution in enumerate(convolutions)
    ]
    for one in inputs:
        network(one)
    for hook in hooks:
        hook.remove()


def simulate(network: nn.Module) -> nn.Module:
    """Return a copy of the network with simulated convolutions, whose ranges are not chosen yet.

    With PReLU they are symmetric: OpenVINO has no fast kernel for such a layer whose zero is not in
    the middle (2 times as long with AMX).
    """
    is_symmetric = any(isinstance(module, nn.PReLU) for module in network.modules())
    network = copy.deepcopy(network).requires_grad_(True)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, SimulatedConvolution(child, InputGrid(is_symmetric)))
    return network


def simulated(network: nn.Module) -> dict[str, SimulatedConvolution]:
    """Return the simulated convolutions by name, in order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, SimulatedConvolution)
    }


@torch.no_grad()
def choose_ranges(network: nn.Module, inputs: Tensor) -> None:
    """Choose every range by running `inputs` (`[N, 3, h, w]` in 0..1) through the float network."""
    grids = [module for module in network.modules() if isinstance(module, InputGrid)]
    for grid in grids:
        grid.watch()
    for one in inputs:
        network(one[None])
    for grid in grids:
        grid.choose_range()


def freeze(network: nn.Module) -> Layers:
    return Layers(
        convolutions={name: layer.freeze() for name, layer in simulated(network).items()},
        slopes={
            name: _array(module.weight)
            for name, module in network.named_modules()
            if isinstance(module, nn.PReLU)
        },
    )


def _round(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    return x + (x.round() - x).detach()


def _array(values: Tensor) -> Floats:
    return values.detach().float().numpy().copy()
