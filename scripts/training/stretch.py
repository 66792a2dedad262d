"""Run a stretch of training on targets: read them, take steps, log, save, and resume."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from scripts.training import checkpoint
from scripts.training.batches import MARGIN_PX
from scripts.training.degradation import Harm
from scripts.training.loop import catch_signals
from scripts.training.pictures import load_pictures
from scripts.training.targets import Batch, Targets, read_targets
from upscaled_models.quantise.features import FeatureNetwork

SAVE_EVERY_STEPS = 100
LOG_EVERY_STEPS = 20
RELOAD_EVERY_STEPS = 300
BORDER_PX = 8
"""Output pixels left out of the losses: they depend on what lies beyond the patch."""


@dataclass(frozen=True)
class TargetRecipe:
    """The numbers of every run that learns from targets."""

    scale: int = 4
    seed: int = 1
    steps: int = 3000
    batch: int = 6
    patch_px: int = 40
    pages: int = 80
    page_share: float = 0.12
    photo_share: float = 0.0
    """Share of the patches that are cut from `--photos`, whose target is the photo. Above 0 only
    the harmed ones of the teacher's targets are used."""
    unharmed_share: float = 0.34
    """Share of the patches from `--photos` that are only made small."""
    truth_share: float = 0.5
    """Of the harmed pictures, those whose features are to be the truth's."""
    feature_network: str = "lite0"
    """The network whose features are learned from; the proof of 8 bits measures by lite1."""


class Run(Protocol):
    """A run between two steps: `step` is the next one to do."""

    step: int

    def parts(self) -> dict[str, Any]:
        """Return everything with a state, by name."""


AnyRun = TypeVar("AnyRun", bound=Run)
AnyTargetRecipe = TypeVar("AnyTargetRecipe", bound=TargetRecipe)


def save(run: Run, recipe: TargetRecipe, folder: Path) -> None:
    """Write the run's state; a crash while writing leaves the previous state in place."""
    state = {name: part.state_dict() for name, part in run.parts().items()}
    checkpoint.write({"recipe": asdict(recipe), "step": run.step, **state}, folder)


def resume(run: Run, folder: Path) -> None:
    """Restore a fresh run from the folder's checkpoint, if there is one."""
    state = checkpoint.read(folder)
    if state is None:
        return
    run.step = state["step"]
    for name, part in run.parts().items():
        part.load_state_dict(state[name])


def train(
    run: AnyRun,
    recipe: TargetRecipe,
    take_step: Callable[[AnyRun, Targets, FeatureNetwork], dict[str, float]],
    *,
    targets_folder: Path,
    folder: Path,
    until: int | None,
    photos: Path | None = None,
) -> None:
    """Take steps to the recipe's last one, or to step `until`, and save the run in `folder`.

    Targets that arrive meanwhile are taken in. SIGTERM and SIGINT end it, saved, after the current
    step.

    Args:
        take_step: does one step, adds 1 to `run.step`, and returns figures to log.
        photos: a folder of photos that are their own targets, for a recipe with `photo_share`.

    Raises:
        ValueError: `targets_folder` holds no target, or `photo_share` is above 0 without photos.
        MissingPackage: the feature network's weights are not installed.
    """
    last = recipe.steps if until is None else min(until, recipe.steps)
    folder.mkdir(parents=True, exist_ok=True)
    features = FeatureNetwork(recipe.feature_network)
    targets: Targets | None = None
    began, first = time.monotonic(), run.step
    with catch_signals() as is_asked_to_stop, (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"begins_at": run.step, **asdict(recipe)}) + "\n")
        while run.step < last and not is_asked_to_stop():
            if targets is None or (run.step - first) % RELOAD_EVERY_STEPS == 0:
                targets = _read_all(targets_folder, photos, recipe)
            figures = take_step(run, targets, features)
            if run.step % LOG_EVERY_STEPS == 0:
                figures["s_per_step"] = (time.monotonic() - began) / (run.step - first)
                figures["targets"] = len(targets.photos)
                log.write(json.dumps({"step": run.step, **figures}) + "\n")
                log.flush()
            if run.step % SAVE_EVERY_STEPS == 0:
                save(run, recipe, folder)
    save(run, recipe, folder)


def _read_all(folder: Path, photos: Path | None, recipe: TargetRecipe) -> Targets:
    targets = read_targets(folder, scale=recipe.scale, pages=recipe.pages, seed=recipe.seed)
    if recipe.photo_share == 0:
        return targets
    if photos is None:
        raise ValueError("a photo_share above 0 needs --photos")
    least_px = (recipe.patch_px + MARGIN_PX) * recipe.scale
    pictures = load_pictures(photos, drawn=0, seed=recipe.seed, least_side_px=least_px)
    harmed = tuple(target for target in targets.photos if target.harm != Harm.NONE)
    return replace(targets, photos=harmed, truths=pictures.photos)


def cut_border(pictures: Tensor, border_px: int = BORDER_PX) -> Tensor:
    """Cut a border from pixels `[N, C, h, w]`: of an output, what the losses leave out."""
    return pictures[..., border_px:-border_px, border_px:-border_px]


def draw_batch(targets: Targets, recipe: TargetRecipe, step: int) -> Batch:
    """Draw the patches of a step, by the recipe's seed and the step's number alone."""
    return targets.draw_batch(
        np.random.default_rng([recipe.seed, step]),
        count=recipe.batch,
        patch_px=recipe.patch_px,
        page_share=recipe.page_share,
        truth_share=recipe.truth_share,
        photo_share=recipe.photo_share,
        unharmed_share=recipe.unharmed_share,
    )
