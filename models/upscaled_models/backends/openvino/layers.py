"""The layers of a network for a graph: plain arrays by the names of the state dict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The scales that map a convolution's weights and input to 8-bit numbers.

    weight_scale: float32 `[O]`, a weight is its whole number times this. low, high: ends of the
    range of the 256 input levels, in the network's own units; 0 is one of the levels. input_scale:
    float32 `[I]`, positive: the input is divided by it, channel by channel, before it is rounded to
    these levels, and the weights are those that read the divided input.
    """

    weight_scale: Floats
    low: float
    high: float
    input_scale: Floats | None = None


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution: weight `[O, I, k, k]`, float32 (int8 if quantised), and bias float32 `[O]`."""

    weight: Floats | NDArray[np.int8]
    bias: Floats | None
    quantised: Quantisation | None = None


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a network by the name of their module; slopes are PReLU's, float32 `[C]`.

    constants: what else the network keeps (float32), by its name in the state dict.
    """

    convolutions: Mapping[str, Convolution]
    slopes: Mapping[str, Floats]
    constants: Mapping[str, Floats] = field(default_factory=dict)


def common_grid(convolutions: Sequence[Convolution]) -> Quantisation | None:
    """Return the last one's levels, which reads what all others read, if all have the same."""
    grids = [each.quantised for each in convolutions if each.quantised is not None]
    if len(grids) < len(convolutions):
        return None
    last = grids[-1]
    return last if all(_is_part_of(each, last) for each in grids) else None


def _is_part_of(one: Quantisation, whole: Quantisation) -> bool:
    """Return whether one reads the first channels that `whole` reads, on the same levels."""
    if (one.low, one.high) != (whole.low, whole.high):
        return False
    if one.input_scale is None or whole.input_scale is None:
        return one.input_scale is whole.input_scale
    return np.array_equal(one.input_scale, whole.input_scale[: len(one.input_scale)])


def layers_of(state: Mapping[str, Floats]) -> Layers:
    """Sort float32 arrays into layers: of four sizes convolutions, of one without bias PReLUs."""
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
