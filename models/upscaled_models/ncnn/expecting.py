"""What a network has at a place of its graph, insisted on with an error that names the layer."""

import math
from collections.abc import Mapping
from typing import TypeVar

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import Activated, Convolved, Summed, Value

Tensors = Mapping[str, Weights]
Kind = TypeVar("Kind", bound=Value)

NAMES = {"rrdb": "an RRDB network", "compact": "a compact network", "span": "a SPAN network"}


def two_terms(
    summed: Summed, family: str, kind: type[Kind], factor: float, *, but: Kind | None = None
) -> tuple[Kind, Value]:
    """The term of that kind times `factor`, and the other, which must be as it is.

    but: the one that the first must be, where both are of that kind.
    """
    if len(summed.terms) == 2:
        for (first, one), (second, other) in (summed.terms, summed.terms[::-1]):
            if not isinstance(one, kind) or but not in (None, one):
                continue
            if math.isclose(first, factor, rel_tol=1e-6) and second == 1.0:
                return one, other
    raise BadParam(f"{summed.layer}: {NAMES[family]} has another sum here")


def expect(value: Value, kind: type[Kind], family: str, meaning: str) -> Kind:
    if not isinstance(value, kind):
        raise BadParam(f"{value.layer}: {NAMES[family]} has {meaning} here")
    return value


def expect_same(value: Value, other: Value, family: str) -> None:
    if value is not other:
        raise BadParam(f"{value.layer}: {NAMES[family]} reads {other.layer} here")


def expect_slope(step: Activated, slope: float, family: str) -> None:
    if not isinstance(step.slope, float) or not math.isclose(step.slope, slope, rel_tol=1e-6):
        found = step.slope if isinstance(step.slope, float) else "PReLU's own"
        raise BadParam(f"{step.layer}: slope {found}, in {NAMES[family]} {slope}")


def expect_channels(
    convolution: Convolved, channels: int, family: str, *, kernel_px: int = 3
) -> None:
    if convolution.channels != channels:
        raise BadParam(
            f"{convolution.layer}: {convolution.channels} channels, in {NAMES[family]} "
            f"there are {channels} here"
        )
    if convolution.weight.shape[2] != kernel_px:
        raise BadParam(
            f"{convolution.layer}: kernel size is {convolution.weight.shape[2]}, in "
            f"{NAMES[family]} {kernel_px}"
        )


def name_convolution(tensors: dict[str, Weights], name: str, convolution: Convolved) -> None:
    tensors[f"{name}.weight"] = convolution.weight
    tensors[f"{name}.bias"] = convolution.bias
