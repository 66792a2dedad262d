"""A model in memory, before it is decided how it runs."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from upscaled_models.registry import ModelSpec


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """network: in float32 on the CPU, weights mixed and filled in; engines copy it, or read its
    `state_dict`. window_px: the usual longest side of a window. weights: the file that `network`
    is, beside which it may lie in 8 bits; None for a mix of two.
    """

    spec: ModelSpec
    network: nn.Module
    window_px: int
    weights: Path | None = None
