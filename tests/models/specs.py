"""Specs of models for engines that are built in tests."""

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from upscaled_models.backends.base import LoadedModel
from upscaled_models.families import Family, Shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.registry import ModelFile, ModelSpec

TINY = plain_shape(scale=2, layers=1, features=8)


def spec_of(
    name: str = "test", family: Family = "plain", shape: Shape = TINY, **changes: Any
) -> ModelSpec:
    """Return the spec of a network of that shape, with some fields changed."""
    file = ModelFile(file="a.pth", sha256="0" * 64, size_bytes=0, family=family, shape=dict(shape))
    return replace(file.describe(name), **changes)


def set_official(monkeypatch: pytest.MonkeyPatch, *specs: ModelSpec) -> None:
    """Let these be the official models during a test."""
    for module in ("registry", "store", "packaged"):
        monkeypatch.setattr(f"upscaled_models.{module}.official_models", lambda: specs)


def loaded(
    network: nn.Module, spec: ModelSpec | None = None, *, native_scale: int = 2
) -> LoadedModel:
    """Return a network as a model with windows of 64 px and, without a spec, no halo."""
    spec = spec or spec_of(native_scale=native_scale, halo_px=0, multiple_px=1)
    return LoadedModel(spec, network, window_px=64)
