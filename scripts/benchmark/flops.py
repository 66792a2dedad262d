"""The arithmetic of a network, counted from its convolutions on tensors that hold no values."""

import copy

import torch
from torch import Tensor, nn


def count_gflop(network: nn.Module, height_px: int, width_px: int) -> float:
    """Count 10^9 multiplications and additions in the convolutions over one picture."""
    hollow = copy.deepcopy(network).to("meta")
    total = 0

    def add(layer: nn.Module, _input: object, result: Tensor) -> None:
        nonlocal total
        for weight in layer.parameters(recurse=False):
            if weight.ndim == 4:  # [out, in / groups, height, width]: out is the result's already
                total += 2 * result.numel() * weight[0].numel()

    for layer in hollow.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    with torch.inference_mode():
        hollow(torch.empty(1, 3, height_px, width_px, device="meta"))
    return total / 1e9
