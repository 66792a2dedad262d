"""Train a student on its teacher's pictures: colour, texture, features and a discriminator."""

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.training import stretch
from scripts.training.discriminator import Discriminator
from scripts.training.loop import move_average
from scripts.training.losses import (
    contrast,
    flicker_error,
    grid_error,
    luma,
    sharpen,
    shift_error,
    shift_source,
    texture_distance,
)
from scripts.training.stretch import BORDER_PX, TargetRecipe, cut_border, draw_batch
from scripts.training.targets import Batch, Targets
from upscaled_models.quantise.features import FeatureNetwork, feature_error

GRID_PX = 4
"""Result pixels to a trunk pixel, of x4 networks and of folded x2 ones."""


@dataclass(frozen=True)
class DistilRecipe(TargetRecipe):
    """Every number that decides the outcome, besides the targets and the first weights."""

    rate: float = 1e-4
    discriminator_rate: float = 2e-4
    ema_decay: float = 0.998
    clip_norm: float = 1.0
    colour_weight: float = 0.3
    contrast_weight: float = 0.3
    fidelity_weight: float = 1.0
    flicker_weight: float = 0.3
    grid_weight: float = 0.0
    """Of the error that repeats with each pixel of the trunk; see `grid_error`."""
    shift_weight: float = 0.0
    """Of the change when the source is shifted by a pixel; see `shift_error`. For networks that
    fold their source: with others it is nothing but a cost."""
    shift_share: float = 0.5
    """Of a batch, the pictures of which a shifted one is computed too."""
    texture_weight: float = 0.3
    """Of the sliced Wasserstein distance: the same texture, wherever it lies."""
    feature_weight: float = 1.0
    discriminator_share: float = 0.5
    """Size of the discriminator's gradient at the output, as a share of all others' together."""
    unharmed_discriminator_share: float = 1.0
    """The share of that gradient that counts for pictures that were only made small."""
    unharmed_sharpen_amount: float = 0.0
    """How much targets and truths are sharpened where the photo was only made small. Drawn pages
    never are."""
    harmed_sharpen_amount: float = 0.0
    warmup_steps: int = 150
    """Steps before the discriminator's gradient counts; over twice as many more its share grows."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate: a short rise, then half a cosine to a fiftieth."""
        rise = min(1.0, (step + 1) / 50)
        fall = 0.5 * (1 + np.cos(np.pi * min(1.0, step / self.steps)))
        return float(self.rate * rise * (0.02 + 0.98 * fall))

    def discriminator_share_at(self, step: int) -> float:
        """Return the share of the discriminator's gradient: 0 at first, then an even rise."""
        grown = (step - self.warmup_steps) / (2 * self.warmup_steps)
        return self.discriminator_share * min(1.0, max(0.0, grown))


@dataclass
class DistilRun:
    """A run between two steps: `step` is the next one to do."""

    recipe: DistilRecipe
    step: int
    network: nn.Module
    average: nn.Module
    discriminator: Discriminator
    optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer

    def parts(self) -> dict[str, Any]:
        """Return everything with a state, by name."""
        names = ("network", "average", "discriminator", "optimizer", "discriminator_optimizer")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ShiftedSources:
    """A batch's first `count` pictures, shifted by 0 or 1 pixels each way: but not by none."""

    count: int
    down_px: int
    right_px: int
    scale: int

    @classmethod
    def draw(cls, recipe: DistilRecipe, step: int, pictures: int) -> "ShiftedSources":
        rng = np.random.default_rng([recipe.seed, step, 1])
        down_px, right_px = ((0, 1), (1, 0), (1, 1))[int(rng.integers(3))]
        count = round(recipe.shift_share * pictures) if recipe.shift_weight > 0 else 0
        return cls(count, down_px, right_px, recipe.scale)

    def append_to(self, small: Tensor) -> Tensor:
        """Return the sources with the shifted ones behind them."""
        if not self.count:
            return small
        moved = shift_source(small[: self.count], self.down_px, self.right_px)
        return torch.cat([small, moved]).contiguous(memory_format=torch.channels_last)

    def error(self, output: Tensor) -> Tensor:
        """Return `shift_error` of the results of what `append_to` returned."""
        shift = (self.down_px * self.scale, self.right_px * self.scale)
        return shift_error(output[: self.count], output[-self.count :], *shift)


def begin(recipe: DistilRecipe, student: nn.Module) -> DistilRun:
    """Return a run at step 0 that starts from the student's weights."""
    torch.manual_seed(recipe.seed)
    student = student.train().requires_grad_(True)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    discriminator = Discriminator(FeatureNetwork(recipe.feature_network))
    return DistilRun(
        recipe,
        0,
        student,
        copy.deepcopy(student),
        discriminator,
        torch.optim.Adam(student.parameters(), lr=recipe.rate, betas=(0.9, 0.99)),
        torch.optim.Adam(
            discriminator.parameters(), lr=recipe.discriminator_rate, betas=(0.5, 0.99)
        ),
    )


def train(
    run: DistilRun,
    targets_folder: Path,
    folder: Path,
    *,
    half: bool,
    until: int | None = None,
    photos: Path | None = None,
) -> None:
    """Train to the recipe's last step, or to step `until`, and save the run; see `stretch.train`.

    half: run the convolutions in bfloat16.
    """
    step = partial(take_step, half=half)
    stretch.train(
        run,
        run.recipe,
        step,
        targets_folder=targets_folder,
        folder=folder,
        until=until,
        photos=photos,
    )


def take_step(
    run: DistilRun, targets: Targets, features: FeatureNetwork, *, half: bool
) -> dict[str, float]:
    """Do one step of the student and of the discriminator, and return the figures to log.

    The gradients of all losses are added up at the student's output, the discriminator's scaled to
    a fixed share of the others' norm, so that one backward pass goes through the student.
    """
    recipe = run.recipe
    torch.manual_seed(recipe.seed * 1_000_003 + run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.rate_at(run.step)
    batch = _sharpen(draw_batch(targets, recipe, run.step), recipe)
    shifted = ShiftedSources.draw(recipe, run.step, len(batch.small))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = run.network(shifted.append_to(batch.small))
    gradient, figures = _gradient_at(run, output.detach().float(), batch, features, shifted)
    run.optimizer.zero_grad()
    output.backward(gradient.to(output.dtype))
    nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip_norm)
    run.optimizer.step()
    run.step += 1
    move_average(run.average, run.network, run.step, recipe.ema_decay)
    return figures


def _sharpen(batch: Batch, recipe: DistilRecipe) -> Batch:
    amounts = torch.where(
        batch.is_harmed, recipe.harmed_sharpen_amount, recipe.unharmed_sharpen_amount
    ).where(~batch.is_page, 0.0)
    target, reference = (sharpen(each, amounts) for each in (batch.target, batch.reference))
    return replace(batch, target=target, reference=reference)


def _gradient_at(
    run: DistilRun,
    output: Tensor,
    batch: Batch,
    features: FeatureNetwork,
    shifted: ShiftedSources,
) -> tuple[Tensor, dict[str, float]]:
    """Return the gradient of all losses at the student's output, and train the discriminator.

    The output's last pictures are those of the shifted sources.
    """
    recipe = run.recipe
    output.requires_grad_(True)
    inner, target, reference = (
        cut_border(each) for each in (output[: len(batch.small)], batch.target, batch.reference)
    )
    source = cut_border(batch.small, BORDER_PX // recipe.scale)
    loss, figures = _loss_of(inner, target, reference, recipe, features)
    if shifted.count:
        error = shifted.error(output) * recipe.shift_weight
        loss, figures["shift"] = loss + error, float(error.detach())
    (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
    discriminator = run.discriminator
    with torch.no_grad():
        large = F.interpolate(source, scale_factor=recipe.scale, mode="bilinear")
        of_source, of_real = discriminator.stages(large), discriminator.stages(reference)
    of_output = discriminator.stages(inner)
    figures["discriminator"] = _train_discriminator(
        run, [stage.detach() for stage in of_output], of_real, of_source
    )
    share = recipe.discriminator_share_at(run.step)
    if share > 0:
        judged = discriminator(of_output, of_source)
        adversarial_loss = -torch.stack([each.mean() for each in judged]).mean()
        (adversarial,) = torch.autograd.grad(adversarial_loss, output)
        size = gradient.norm() / (adversarial.norm() + 1e-8)
        counts = torch.where(batch.is_harmed, 1.0, recipe.unharmed_discriminator_share)
        counts = F.pad(counts, (0, shifted.count))
        gradient = gradient + share * size * adversarial * counts.view(-1, 1, 1, 1)
    return gradient, figures


def _loss_of(
    output: Tensor,
    target: Tensor,
    reference: Tensor,
    recipe: DistilRecipe,
    features: FeatureNetwork,
) -> tuple[Tensor, dict[str, float]]:
    output_luma, target_luma = luma(output), luma(target)
    with torch.no_grad():
        wanted = features.stages(reference * 255)
    parts = {
        "colour": (output - target).abs().mean() * recipe.colour_weight,
        "contrast": (contrast(output_luma) - contrast(target_luma)).abs().mean()
        * recipe.contrast_weight,
        "texture": texture_distance(output, target) * recipe.texture_weight,
        "fidelity": F.avg_pool2d(output - target, recipe.scale).abs().mean()
        * recipe.fidelity_weight,
        "flicker": flicker_error(output - target) * recipe.flicker_weight,
        "grid": grid_error(output - target, GRID_PX) * recipe.grid_weight,
        "features": feature_error(features.stages(output * 255), wanted) * recipe.feature_weight,
    }
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(part.detach()) for name, part in parts.items()}


def _train_discriminator(
    run: DistilRun, made: list[Tensor], wanted: list[Tensor], source: list[Tensor]
) -> float:
    """Do one step of the discriminator, and return its hinge loss: 2 by chance, 0 if perfect."""
    of_made, of_wanted = run.discriminator(made, source), run.discriminator(wanted, source)
    losses = [
        F.relu(1 + fake).mean() + F.relu(1 - real).mean()
        for fake, real in zip(of_made, of_wanted, strict=True)
    ]
    loss = torch.stack(losses).mean()
    run.discriminator_optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    run.discriminator_optimizer.step()
    return float(loss.detach())
