"""Tune a simulated network towards the results of the float network.

Weights, their scales and the ranges of activations move a little (Esser et al., arXiv:1902.08153).
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.fetch import ReportProgress
from upscaled_models.quantise.simulation import InputGrid, simulated

BATCH: Final = 4
PATCH_PX: Final = 48
WARM_STEPS: Final = 15
FIRST_SHARE: Final = 6 / 7
"""Share of the steps in bfloat16, where the processor multiplies it: 1.6 times as fast (64
features, 32 convolutions, one core of an AMD EPYC). The last steps are exact."""

SCALE_RATE: Final = 0.001
"""Learning rate of the logarithm of a range."""


def tune(
    network: nn.Module,
    teacher: nn.Module,
    inputs: Tensor,
    *,
    steps: int,
    rate: float,
    seed: int,
    progress: ReportProgress | None = None,
) -> None:
    """Tune the simulated `network` in place towards `teacher`.

    Args:
        inputs: `[N, 3, h, w]` in 0..1, from which patches are cut.
        rate: steps of its 8-bit scale that a weight moves at a time; deep networks diverge at 0.01.
        progress: called with (steps done, steps in all).
    """
    optimiser = torch.optim.Adam(parameter_groups(network, rate), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, steps))
    generator = torch.Generator().manual_seed(seed)
    half = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    for step in range(steps):
        is_first_part = step < (steps - 1) * FIRST_SHARE
        for layer in simulated(network).values():
            layer.dtype = half if is_first_part else torch.float32
        patches = _cut(inputs, generator)
        with torch.no_grad():
            wanted = teacher(patches)
        loss = (network(patches) - wanted).mul(LEVELS).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)


def parameter_groups(network: nn.Module, rate: float) -> list[dict[str, object]]:
    """Return the parameter groups of a simulated network for Adam, each with its rate.

    rate: as in `tune`. Slopes stay as they are.
    """
    groups: list[dict[str, object]] = []
    rest: list[nn.Parameter] = []
    for layer in simulated(network).values():
        step = float(layer.log_weight_scale.detach().exp().mean())
        weights = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        groups.append({"params": weights, "lr": rate * step})
        rest.append(layer.log_weight_scale)
    rest += [module.log_scale for module in network.modules() if isinstance(module, InputGrid)]
    return [*groups, {"params": rest, "lr": min(SCALE_RATE, rate / 10)}]


def rate_share(step: int, steps: int) -> float:
    """Return the share of the rate at a step: up in a few steps, then down along a cosine."""
    return min(1.0, (step + 1) / WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _cut(inputs: Tensor, generator: torch.Generator) -> Tensor:
    patches = []
    for _ in range(BATCH):
        at = int(torch.randint(0, len(inputs), (), generator=generator))
        top, left = (
            int(torch.randint(0, side - PATCH_PX + 1, (), generator=generator))
            for side in inputs.shape[2:]
        )
        patches.append(inputs[at, :, top : top + PATCH_PX, left : left + PATCH_PX])
    return torch.stack(patches)
