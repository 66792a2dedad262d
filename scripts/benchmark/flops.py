"""The arithmetic of a network, counted from its convolutions on tensors that hold no values."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_gflop(network: nn.Module, height_px: int, width_px: int) -> float:
    """Count 10^9 multiplications and additions in the convolutions over one picture."""
    hollow = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hollow(torch.empty(1, 3, height_px, width_px, device="meta"))
    flop: int = counter.get_total_flops()
    return flop / 1e9
