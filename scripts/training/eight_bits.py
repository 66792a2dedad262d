"""Tune a student in simulated 8 bits: near its own float32, and no further from the truth.

`upscaled_models.quantise.tuning` asks for the same pixels alone. The error of a network that
invents texture is small then in the mean, but noise: its features are further from the truth. Here
the features of the result count too, and smooth areas more than others.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.training import stretch
from scripts.training.loop import move_average
from scripts.training.stretch import TargetRecipe, cut_border, draw_batch
from scripts.training.targets import Targets
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.quantise.comparison import SMOOTH_PX
from upscaled_models.quantise.features import FeatureNetwork, feature_error
from upscaled_models.quantise.simulation import (
    LAST_LEVEL,
    choose_ranges,
    equalise,
    freeze,
    simulate,
    simulated,
)
from upscaled_models.quantise.tuning import parameter_groups, rate_share

CALIBRATED = 30
"""Patches from which the ranges of a network that was not tuned yet are measured."""
SMOOTH_SPREAD_LEVELS = 7
"""An area counts as smooth where float32 varies by less. The proof's limit is 4 in whole levels:
narrower areas are too few in a batch."""


@dataclass(frozen=True)
class EightBitRecipe(TargetRecipe):
    """Every number that decides the outcome, besides the targets and the network."""

    batch: int = 5
    pages: int = 40
    page_share: float = 0.1
    rate: float = 0.004
    """Of a weight, in steps of its 8-bit scale. The same network diverges at 0.01."""
    equalised_share: float = 0.6
    smooth_weight: float = 6.0
    """Of a pixel in a smooth area, beside 1 of every pixel."""
    feature_share: float = 0.6
    """Size of the features' gradient at the output, as a share of the pixels'."""
    exact_share: float = 0.15
    """The last part of the steps, multiplied in float32 in place of bfloat16."""
    ema_decay: float = 0.99


@dataclass
class EightBitRun:
    """A run between two steps: `step` is the next one to do. `teacher` is the float network."""

    recipe: EightBitRecipe
    step: int
    teacher: nn.Module
    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer

    def parts(self) -> dict[str, Any]:
        """Return everything with a state, by name."""
        return {name: getattr(self, name) for name in ("network", "average", "optimizer")}


def begin(recipe: EightBitRecipe, teacher: nn.Module, start: nn.Module) -> EightBitRun:
    """Return a run at step 0 that goes on from a simulated network."""
    teacher = teacher.eval().requires_grad_(False)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(parameter_groups(start, recipe.rate), betas=(0.9, 0.99))
    for group in optimizer.param_groups:
        group["full_rate"] = group["lr"]
    return EightBitRun(recipe, 0, teacher, start, copy.deepcopy(start), optimizer)


def simulate_untuned(teacher: nn.Module, patches: Tensor, share: float) -> nn.Module:
    """Return the equalised network in simulated 8 bits, its ranges chosen by `patches`.

    Args:
        patches: `[N, 3, h, w]` in 0..1.
        share: see `equalise`.
    """
    start = simulate(equalise(teacher, patches, share))
    choose_ranges(start, patches)
    return start


@torch.no_grad()
def simulate_layers(teacher: nn.Module, layers: Layers) -> nn.Module:
    """Return the simulated network whose `freeze` gives `layers`, which are all in 8 bits."""
    network = simulate(teacher)
    for name, layer in simulated(network).items():
        stored = layers.convolutions[name]
        quantised = stored.quantised
        if quantised is None:
            raise ValueError(f"{name} is not in 8 bits")
        scale = torch.from_numpy(quantised.weight_scale)
        layer.weight.copy_(torch.from_numpy(stored.weight).float() * scale.view(-1, 1, 1, 1))
        layer.log_weight_scale.copy_(scale.log())
        if layer.bias is not None and stored.bias is not None:
            layer.bias.copy_(torch.from_numpy(stored.bias))
        step = (quantised.high - quantised.low) / LAST_LEVEL
        layer.grid.log_scale.fill_(math.log(step))
        layer.grid.zero.fill_(round(-quantised.low / step))
    for name, module in network.named_modules():
        if isinstance(module, nn.PReLU):
            module.weight.copy_(torch.from_numpy(layers.slopes[name]))
    return network


def layers_of(run: EightBitRun) -> Layers:
    """Return the average's layers as plain numbers."""
    return freeze(run.average)


def train(run: EightBitRun, targets_folder: Path, folder: Path, *, until: int | None) -> None:
    """Tune to the recipe's last step, or to step `until`, and save the run; see `stretch.train`."""
    stretch.train(
        run, run.recipe, take_step, targets_folder=targets_folder, folder=folder, until=until
    )


def take_step(run: EightBitRun, targets: Targets, features: FeatureNetwork) -> dict[str, Any]:
    """Do one step and return the figures to log."""
    recipe = run.recipe
    for group in run.optimizer.param_groups:
        group["lr"] = group["full_rate"] * rate_share(run.step, recipe.steps)
    is_exact = run.step >= (1 - recipe.exact_share) * recipe.steps or not has_fast_bfloat16()
    for layer in simulated(run.network).values():
        layer.dtype = torch.float32 if is_exact else torch.bfloat16
    batch = draw_batch(targets, recipe, run.step)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not is_exact):
        wanted = run.teacher(batch.small).float()
    output = run.network(batch.small)
    gradient, figures = _gradient_at(recipe, output.detach(), wanted, batch.reference, features)
    run.optimizer.zero_grad()
    output.backward(gradient)
    run.optimizer.step()
    run.step += 1
    move_average(run.average, run.network, run.step, recipe.ema_decay)
    return figures


def _gradient_at(
    recipe: EightBitRecipe,
    output: Tensor,
    wanted: Tensor,
    reference: Tensor,
    features: FeatureNetwork,
) -> tuple[Tensor, dict[str, float]]:
    """Return the gradient of both losses at the output, that of features scaled to its share."""
    output.requires_grad_(True)
    error = cut_border(output - wanted) * LEVELS
    weight = 1 + recipe.smooth_weight * cut_border(find_smooth(wanted))
    (gradient,) = torch.autograd.grad((error.square() * weight).mean(), output)
    with torch.no_grad():
        real, own = (features.stages(cut_border(each) * LEVELS) for each in (reference, wanted))
    made = features.stages(cut_border(output) * LEVELS)
    to_real, to_own = feature_error(made, real), feature_error(made, own)
    (of_features,) = torch.autograd.grad(to_real + to_own, output)
    size = gradient.norm() / of_features.norm().clamp_min(1e-12)
    figures = {
        "square_error": float(error.detach().square().mean()),
        "features_to_truth": float(to_real.detach()),
        "features_to_float": float(to_own.detach()),
    }
    return gradient + recipe.feature_share * size * of_features, figures


def find_smooth(pixels: Tensor) -> Tensor:
    """Return 1 where `[N, 3, h, w]` in 0..1 hardly varies around, else 0: `[N, 1, h, w]`."""
    most, least = (
        sign * F.max_pool2d(sign * pixels, SMOOTH_PX, 1, SMOOTH_PX // 2) for sign in (1, -1)
    )
    spread = (most - least).amax(1, keepdim=True) * LEVELS
    return (spread < SMOOTH_SPREAD_LEVELS).float()
