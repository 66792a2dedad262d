"""A tiny pair of networks under the names of the model that has a strength of denoising."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models.specs import set_official, spec_of
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.files import hash_file
from upscaled_models.registry import ModelSpec, find_official, official_models
from upscaled_models.weights import build_network

NAME = "realesr-general-x4v3"
PARTNER = "realesr-general-wdn-x4v3"


def place_tiny_pair(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two tiny networks with other random weights be the official pair during a test."""
    models_dir.mkdir(parents=True, exist_ok=True)
    partner = _place(models_dir, PARTNER, seed=1)
    model = replace(_place(models_dir, NAME, seed=0), wdn=partner)
    others = [spec for spec in official_models() if spec.name not in (NAME, PARTNER)]
    set_official(monkeypatch, *others, model, partner)


def place_file(models_dir: Path, name: str) -> None:
    """Put something under an official file's name: what is in it is checked when it is loaded."""
    spec = find_official(name)
    assert spec is not None
    models_dir.mkdir(parents=True, exist_ok=True)
    (models_dir / spec.file_name).write_bytes(b"weights")


def _place(models_dir: Path, name: str, *, seed: int) -> ModelSpec:
    shape = srvgg_shape(upscale=4, num_conv=1, num_feat=4)
    path = models_dir / f"{name}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_file(build_network("srvgg", shape).state_dict(), path)
    return spec_of(
        name,
        "srvgg",
        shape,
        file_name=path.name,
        size_bytes=path.stat().st_size,
        sha256=hash_file(path),
        source="official",
    )
