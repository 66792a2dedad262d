"""Train a student on its teacher's pictures: colour, texture, features and a discriminator."""

import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.training.discriminator import Discriminator
from scripts.training.losses import contrast, flicker_error, luma, texture_distance
from scripts.training.targets import Targets, read_targets
from upscaled_models.quantise.features import FeatureNetwork, feature_error

FILE_NAME = "distil.pt"
SAVE_EVERY_STEPS = 100
RELOAD_EVERY_STEPS = 300
BORDER_PX = 8
"""Output pixels left out of the losses: they depend on what lies beyond the patch."""


@dataclass(frozen=True)
class DistilRecipe:
    """Every number that decides the outcome, besides the targets and the first weights."""

    scale: int = 4
    seed: int = 1
    steps: int = 3000
    rate: float = 1e-4
    discriminator_rate: float = 2e-4
    batch: int = 6
    patch_px: int = 40
    pages: int = 80
    page_share: float = 0.12
    ema_decay: float = 0.998
    clip_norm: float = 1.0
    colour_weight: float = 0.3
    contrast_weight: float = 0.3
    fidelity_weight: float = 1.0
    flicker_weight: float = 0.3
    texture_weight: float = 0.3
    """Of the sliced Wasserstein distance: the same texture, wherever it lies."""
    feature_weight: float = 1.0
    discriminator_share: float = 0.5
    """Size of the discriminator's gradient at the output, as a share of all others' together."""
    warmup_steps: int = 150
    """Steps before the discriminator counts, and half of those over which it grows."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate: a short rise, then half a cosine to a fiftieth."""
        rise = min(1.0, (step + 1) / 50)
        fall = 0.5 * (1 + np.cos(np.pi * min(1.0, step / self.steps)))
        return float(self.rate * rise * (0.02 + 0.98 * fall))


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


def begin(recipe: DistilRecipe, student: nn.Module) -> DistilRun:
    """Return a run at step 0 that starts from the student's weights."""
    torch.manual_seed(recipe.seed)
    student = student.train().requires_grad_(True)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    judge = Discriminator(FeatureNetwork())
    return DistilRun(
        recipe,
        0,
        student,
        copy.deepcopy(student),
        judge,
        torch.optim.Adam(student.parameters(), lr=recipe.rate, betas=(0.9, 0.99)),
        torch.optim.Adam(judge.parameters(), lr=recipe.discriminator_rate, betas=(0.5, 0.99)),
    )


def save(run: DistilRun, folder: Path) -> None:
    """Write the run's state; a crash while writing leaves the previous state in place."""
    state = {name: part.state_dict() for name, part in run.parts().items()}
    unfinished = folder / (FILE_NAME + ".part")
    torch.save({"recipe": asdict(run.recipe), "step": run.step, **state}, unfinished)
    unfinished.replace(folder / FILE_NAME)


def resume(run: DistilRun, folder: Path) -> None:
    """Restore a fresh run from the folder's checkpoint, if there is one."""
    path = folder / FILE_NAME
    if not path.exists():
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    run.step = state["step"]
    for name, part in run.parts().items():
        part.load_state_dict(state[name])


def train(
    run: DistilRun, targets_folder: Path, folder: Path, *, half: bool, until: int | None = None
) -> None:
    """Train to the recipe's last step, or to step `until`, and save the run.

    Targets that arrive meanwhile are taken in. `half` runs the convolutions in bfloat16.

    Raises:
        ValueError: `targets_folder` holds no target.
        MissingPackage: the feature network's weights are not installed.
    """
    recipe = run.recipe
    last = recipe.steps if until is None else min(until, recipe.steps)
    folder.mkdir(parents=True, exist_ok=True)
    judge_features = FeatureNetwork()
    targets: Targets | None = None
    began, first = time.monotonic(), run.step
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"begins_at": run.step, **asdict(recipe)}) + "\n")
        while run.step < last:
            if targets is None or (run.step - first) % RELOAD_EVERY_STEPS == 0:
                targets = read_targets(
                    targets_folder, scale=recipe.scale, pages=recipe.pages, seed=recipe.seed
                )
            figures = take_step(run, targets, judge_features, half=half)
            if run.step % 20 == 0:
                figures["s_per_step"] = (time.monotonic() - began) / (run.step - first)
                figures["targets"] = len(targets.photos)
                log.write(json.dumps({"step": run.step, **figures}) + "\n")
                log.flush()
            if run.step % SAVE_EVERY_STEPS == 0:
                save(run, folder)
    save(run, folder)


def take_step(
    run: DistilRun, targets: Targets, features: FeatureNetwork, *, half: bool
) -> dict[str, float]:
    """Do one step of the student and of the discriminator, and return the figures to log.

    The gradients of all losses are added up at the student's output, the discriminator's scaled to
    a fixed share of the others' norm, so that one backward pass goes through the student.
    """
    recipe = run.recipe
    rng = np.random.default_rng([recipe.seed, run.step])
    torch.manual_seed(recipe.seed * 1_000_003 + run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.rate_at(run.step)
    small, target = targets.draw_batch(
        rng, count=recipe.batch, patch_px=recipe.patch_px, page_share=recipe.page_share
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = run.network(small)
    shown = output.detach().float().requires_grad_(True)
    inner = shown[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    truth = target[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    edge = BORDER_PX // recipe.scale
    source = small[..., edge:-edge, edge:-edge]
    loss, figures = _loss_of(inner, truth, recipe, features)
    (gradient,) = torch.autograd.grad(loss, shown, retain_graph=True)
    judge = run.discriminator
    with torch.no_grad():
        large = F.interpolate(source, scale_factor=recipe.scale, mode="bilinear")
        of_source, of_truth = judge.stages(large), judge.stages(truth)
    of_output = judge.stages(inner)
    figures["discriminator"] = _train_discriminator(
        run, [stage.detach() for stage in of_output], of_truth, of_source
    )
    share = recipe.discriminator_share * min(
        1.0, max(0.0, (run.step - recipe.warmup_steps) / (2 * recipe.warmup_steps))
    )
    if share > 0:
        urge_loss = -torch.stack([each.mean() for each in judge(of_output, of_source)]).mean()
        (urge,) = torch.autograd.grad(urge_loss, shown)
        gradient = gradient + share * gradient.norm() / (urge.norm() + 1e-8) * urge
    run.optimizer.zero_grad()
    output.backward(gradient.to(output.dtype))
    nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip_norm)
    run.optimizer.step()
    run.step += 1
    _move_average(run)
    return figures


def _loss_of(
    output: Tensor, target: Tensor, recipe: DistilRecipe, features: FeatureNetwork
) -> tuple[Tensor, dict[str, float]]:
    output_luma, target_luma = luma(output), luma(target)
    with torch.no_grad():
        wanted = features.stages(target * 255)
    parts = {
        "colour": (output - target).abs().mean() * recipe.colour_weight,
        "contrast": (contrast(output_luma) - contrast(target_luma)).abs().mean()
        * recipe.contrast_weight,
        "texture": texture_distance(output, target) * recipe.texture_weight,
        "fidelity": F.avg_pool2d(output - target, recipe.scale).abs().mean()
        * recipe.fidelity_weight,
        "flicker": flicker_error(output_luma - target_luma) * recipe.flicker_weight,
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


@torch.no_grad()
def _move_average(run: DistilRun) -> None:
    decay = min(run.recipe.ema_decay, run.step / (run.step + 10))
    averages: list[Tensor] = list(run.average.parameters())
    weights: list[Tensor] = list(run.network.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)
