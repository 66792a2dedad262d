"""The arithmetic of a network, counted from its convolutions on tensors that hold no values."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

Shape = tuple[int, int]
"""Height and width of a window, in pixels."""


def count_gflop(network: nn.Module, windows: Mapping[Shape, int]) -> float:
    """10^9 multiplications and additions in the convolutions of `network` over all windows.

    Args:
        windows: how many of each shape go through it, halos and paddings included.
    """
    hollow = copy.deepcopy(network).to("meta")
    return sum(_count_one(hollow, shape) * count for shape, count in windows.items()) / 1e9


def _count_one(hollow: nn.Module, shape: Shape) -> int:
    total = 0

    def add(layer: nn.Module, _given: object, result: Tensor) -> None:
        nonlocal total
        for weight in layer.parameters(recurse=False):
            if weight.ndim == 4:  # [out, in / groups, height, width]: out is the result's already
                total += 2 * result.numel() * weight[0].numel()

    layers = [layer for layer in hollow.modules() if isinstance(layer, nn.Conv2d)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        with torch.inference_mode():
            hollow(torch.empty(1, 3, *shape, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return total
