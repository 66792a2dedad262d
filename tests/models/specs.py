"""Specs of models for engines that are built in tests."""

from dataclasses import replace
from typing import Any

from torch import nn

from upscaled_models.backends.base import LoadedModel
from upscaled_models.families import Family, Shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.registry import ModelSpec, describe_model

TINY = plain_shape(scale=2, layers=1, features=8)


def spec_of(
    name: str = "test",
    family: Family = "plain",
    shape: Shape = TINY,
    **changes: Any,
) -> ModelSpec:
    """Return the spec of a network of that shape, with some fields changed."""
    spec = describe_model(
        name, family, shape, file_name="", size_bytes=0, sha256="0", licence="", source="user"
    )
    return replace(spec, **changes)


def loaded(
    network: nn.Module, spec: ModelSpec | None = None, *, native_scale: int = 2
) -> LoadedModel:
    """Return a network as a model with windows of 64 px and, without a spec, no halo."""
    spec = spec or spec_of(native_scale=native_scale, halo_px=0, multiple_px=1)
    return LoadedModel(spec, network, window_px=64)
