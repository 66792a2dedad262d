"""The weights that are measured with: real ones where they are at hand, else random ones."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import nn

from upscaled.config import load_settings
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.packaged import install_packaged, missing_packaged
from upscaled_models.registry import WEIGHTS_PACKAGE, WEIGHTS_PACKAGE_VERSION
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

GENERAL, ANIME = "realesr-general-x4v3", "realesr-animevideov3"
X4PLUS, X4PLUS_ANIME = "realesrgan-x4plus", "realesrgan-x4plus-anime-6b"
RANDOM = "random"
_SUFFIXES: Final = {GENERAL: (".pth", ".fp16.safetensors"), ANIME: (".pth",)}
_FAINT = 0.01
"""Strength of a random network's last layer: what it adds to its enlarged source is hardly seen."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model of the store of `data_dir` by its name there, and where its values come from."""

    model: str
    origin: str


def add_official(data_dir: Path, name: str) -> Weights | None:
    """Add a model from the user's own store or `TEST_DATA_DIR`, else from an installed package.

    It is named "general-x4v3" if a file is not the release's own. None if it is nowhere.
    """
    store, folders = ModelStore(data_dir / "models"), [load_settings({}).models_dir]
    if "TEST_DATA_DIR" in os.environ:
        folders.append(Path(os.environ["TEST_DATA_DIR"]) / "weights")
    suffixes = _SUFFIXES.get(name, ())
    files = [folder / f"{name}{suffix}" for folder in folders for suffix in suffixes]
    for candidate in files:
        if candidate.is_file():
            own_name = name if candidate.name == f"{name}.pth" else "general-x4v3"
            store.add(own_name, candidate)
            return Weights(own_name, candidate.name)
    for spec in missing_packaged(store):
        if spec.name == name:
            install_packaged(spec, store)
    if store.path(store.find(name)) is None:
        return None
    return Weights(name, f"{WEIGHTS_PACKAGE} {WEIGHTS_PACKAGE_VERSION}")


def add_general(data_dir: Path) -> Weights:
    """Add realesr-general-x4v3, with random weights where it is nowhere: its speed is the same."""
    return add_official(data_dir, GENERAL) or add_random_compact(data_dir)


def add_random_compact(data_dir: Path, num_conv: int = 32, num_feat: int = 64) -> Weights:
    """Add a network of general-x4v3's shape with random weights, for speed alone.

    It enlarges its source and adds hardly anything: results that resemble nothing would fail the
    service's sanity check.
    """
    torch.manual_seed(0)
    network = build_network("srvgg", srvgg_shape(4, num_conv, num_feat=num_feat))
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(_FAINT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
        ModelStore(data_dir / "models").add("random-general", file)
    return Weights("random-general", RANDOM)
