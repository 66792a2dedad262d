"""Export a run's checkpoint as a default model: float16 safetensors and its manifest entry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from scripts.training import checkpoint
from scripts.training.manifest import store_default
from upscaled_models.families import recognise


def export(
    run_folder: Path, name: str, folder: Path, *, past: Path | None = None, beyond: float = 0.0
) -> dict[str, Any]:
    """Store the run's averaged weights as `folder/name.safetensors`; returns its manifest entry.

    `past` is a copy of the run's folder from before its last stretch: the weights then go `beyond`
    times the way from there to here further. This adjusts the effect of that stretch without
    training again.

    Raises:
        FileNotFoundError: a folder has no checkpoint yet.
        ValueError: another entry of the manifest shares the file that would change, or the run
            trains a network that is not plain.
    """
    state = _read(run_folder)
    average: dict[str, torch.Tensor] = state["average"]
    before: dict[str, torch.Tensor] = average if past is None else _read(past)["average"]
    weights = {key: tensor + beyond * (tensor - before[key]) for key, tensor in average.items()}
    family, _ = recognise({key: tuple(tensor.shape) for key, tensor in weights.items()})
    if family != "plain":
        raise ValueError(f"{run_folder} trains a {family} network; `student` stores its weights")
    return store_default(weights, name, folder)


def export_student(run_folder: Path, path: Path) -> None:
    """Store a distilled run's averaged weights as float16, in a `.safetensors` file.

    `scripts/train distil --from` goes on from it, and `upscaled models add` takes it.

    Raises:
        FileNotFoundError: the folder has no checkpoint yet.
    """
    store_weights(_read(run_folder)["average"], path)


def store_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Store weights as float16, in a `.safetensors` file without a description of the network."""
    save_file({key: value.half().contiguous() for key, value in state.items()}, path)
    path.chmod(0o644)  # the library leaves it readable to its maker alone


def _read(run_folder: Path) -> dict[str, Any]:
    state = checkpoint.read(run_folder)
    if state is None:
        raise FileNotFoundError(f"{run_folder} holds no {checkpoint.FILE_NAME}")
    return state
