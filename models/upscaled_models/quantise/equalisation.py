"""Equalise the size of a network's channels without changing its results.

All channels of an activation share one 8-bit range, so a small channel would get few levels. PReLU
and LeakyReLU let a positive factor through, so the next convolution can undo it. (Nagel et al.,
arXiv:1906.04721; the trade between activations and weights is that of SmoothQuant,
arXiv:2211.10438.)
"""

import copy
from typing import Final

import torch
from torch import Tensor, nn

ALPHA: Final = 0.45
"""Trade-off: 1 equalises activations, 0 the weights that read them."""


@torch.no_grad()
def equalise(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Return an equalised copy of a network that is one chain of convolutions (compact or plain).

    Args:
        inputs: `[N, 3, h, w]` in 0..1, from which the size of each channel is measured.
    """
    network = copy.deepcopy(network)
    chain = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    sizes = _measure(network, chain, inputs)
    for before, after, size in zip(chain, chain[1:], sizes[1:], strict=False):
        read = after.weight.abs().amax((0, 2, 3)).clamp_min(1e-6)
        factor = size.clamp_min(1e-6).pow(ALPHA) / read.pow(1 - ALPHA)
        factor /= factor.log().mean().exp()
        before.weight.div_(factor.view(-1, 1, 1, 1))
        if before.bias is not None:
            before.bias.div_(factor)
        after.weight.mul_(factor.view(1, -1, 1, 1))
    return network


def _measure(network: nn.Module, chain: list[nn.Conv2d], inputs: Tensor) -> list[Tensor]:
    """Return the largest value of each input channel of each convolution."""
    sizes = [torch.zeros(convolution.in_channels) for convolution in chain]

    def watch(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        at = chain.index(module)  # type: ignore[arg-type]
        sizes[at] = torch.maximum(sizes[at], arguments[0].abs().amax((0, 2, 3)))

    hooks = [convolution.register_forward_pre_hook(watch) for convolution in chain]
    for one in inputs:
        network(one[None])
    for hook in hooks:
        hook.remove()
    return sizes
