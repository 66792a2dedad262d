"""Store and read a run's state: everything that the next step depends on."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.training.recipe import AnyRecipe, Recipe

FILE_NAME = "checkpoint.pt"


@dataclasses.dataclass
class Run:
    """A training run between two steps: `step` is the next one to do."""

    recipe: Recipe
    step: int
    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer


def save(run: Run, folder: Path) -> None:
    """Write the run's state; a crash while writing leaves the previous state in place."""
    state = {
        "recipe": dataclasses.asdict(run.recipe),
        "step": run.step,
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    write(state, folder)


def write(state: dict[str, Any], folder: Path) -> None:
    """Write a state that `read` returns; a crash while writing leaves the previous one in place."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / (FILE_NAME + ".part")
    torch.save(state, unfinished)
    os.replace(unfinished, folder / FILE_NAME)


def read(folder: Path) -> dict[str, Any] | None:
    """Read the stored state; None where the folder holds no checkpoint yet."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def stored_recipe(state: dict[str, Any], kind: type[AnyRecipe]) -> AnyRecipe:
    """Return the recipe of a stored state, of the class `kind`."""
    return kind(**state["recipe"])
