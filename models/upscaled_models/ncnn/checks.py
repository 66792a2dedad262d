"""Check the values at one point of a network's graph; errors name the layer and the network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import Activated, Convolved, Summed, Value

Tensors = Mapping[str, Weights]
Kind = TypeVar("Kind", bound=Value)


@dataclass(frozen=True)
class GraphCheck:
    """Checks for one kind of network; every method raises `BadParam` for another graph.

    network: with its article, as in "an RRDB network has a convolution here".
    """

    network: str

    def kind(self, value: Value, kind: type[Kind], meaning: str) -> Kind:
        """Return `value`, which must be of that kind."""
        if not isinstance(value, kind):
            raise BadParam(f"{value.layer}: {self.network} has {meaning} here")
        return value

    def convolution(self, value: Value) -> Convolved:
        return self.kind(value, Convolved, "a convolution")

    def two_terms(
        self, summed: Summed, kind: type[Kind], factor: float, *, but: Kind | None = None
    ) -> tuple[Kind, Value]:
        """Return the term of that kind times `factor`, and the other, which must be unscaled.

        but: the value that the first must be, where both are of that kind.
        """
        if len(summed.terms) == 2:
            for (first, one), (second, other) in (summed.terms, summed.terms[::-1]):
                if not isinstance(one, kind) or but not in (None, one):
                    continue
                if math.isclose(first, factor, rel_tol=1e-6) and second == 1.0:
                    return one, other
        raise BadParam(f"{summed.layer}: {self.network} has another sum here")

    def same(self, value: Value, other: Value) -> None:
        if value is not other:
            raise BadParam(f"{value.layer}: {self.network} reads {other.layer} here")

    def slope(self, step: Activated, slope: float) -> None:
        if not isinstance(step.slope, float) or not math.isclose(step.slope, slope, rel_tol=1e-6):
            slope_found = step.slope if isinstance(step.slope, float) else "PReLU's own"
            raise BadParam(f"{step.layer}: slope {slope_found}, in {self.network} {slope}")

    def named(
        self,
        tensors: dict[str, Weights],
        name: str,
        convolution: Convolved,
        channels: int,
        *,
        kernel_px: int = 3,
    ) -> None:
        """Add a convolution's weights to `tensors` under its name, if it has the expected size."""
        if convolution.channels != channels:
            raise BadParam(
                f"{convolution.layer}: {convolution.channels} channels, in {self.network} "
                f"there are {channels} here"
            )
        if convolution.weight.shape[2] != kernel_px:
            raise BadParam(
                f"{convolution.layer}: kernel size is {convolution.weight.shape[2]}, in "
                f"{self.network} {kernel_px}"
            )
        tensors[f"{name}.weight"] = convolution.weight
        tensors[f"{name}.bias"] = convolution.bias
