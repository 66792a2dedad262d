"""A network's weights as a graph takes them in: plain arrays under the names of the state dict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How 8-bit numbers stand for a convolution's weights and input.

    weight_scale: float32 `[O]`, a weight is its whole number times this. low, high: ends of the
    range of the 256 input levels, in the network's own units; 0 is one of the levels.
    """

    weight_scale: Floats
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Convolution:
    """weight: `[O, I, k, k]`, float32, or int8 where it is quantised; bias: float32 `[O]`."""

    weight: Floats | NDArray[np.int8]
    bias: Floats | None
    quantised: Quantisation | None = None


@dataclass(frozen=True, slots=True)
class Layers:
    """convolutions and slopes (of PReLU, float32 `[C]`) by the name of their module; constants:
    what else the network keeps (float32), by its name in the state dict.
    """

    convolutions: Mapping[str, Convolution]
    slopes: Mapping[str, Floats]
    constants: Mapping[str, Floats] = field(default_factory=dict)


def common_grid(convolutions: Sequence[Convolution]) -> Quantisation | None:
    """The levels that all of them take their input in, if all have the same."""
    first = convolutions[0].quantised
    if first is None:
        return None
    ends = {(each.quantised.low, each.quantised.high) for each in convolutions if each.quantised}
    is_common = len(ends) == 1 and all(each.quantised for each in convolutions)
    return first if is_common else None


def layers_of(state: Mapping[str, Floats]) -> Layers:
    """The layers of a state dict of float32 arrays.

    A weight of four sizes is a convolution's, one of one size and without a bias a PReLU's.
    """
    weights = {key.removesuffix(".weight"): key for key in state if key.endswith(".weight")}
    convolutions = {
        name: Convolution(state[key], state.get(f"{name}.bias"))
        for name, key in weights.items()
        if state[key].ndim == 4
    }
    slopes = {
        name: state[key]
        for name, key in weights.items()
        if state[key].ndim == 1 and f"{name}.bias" not in state
    }
    used = {f"{name}.{kind}" for name in convolutions for kind in ("weight", "bias")}
    used |= {f"{name}.weight" for name in slopes}
    constants = {key: value for key, value in state.items() if key not in used}
    return Layers(convolutions, slopes, constants)
