"""Round weights to 8 bits by a recipe: input levels that were measured once, and weights to fit.

Only single operations of float32, as IEEE 754 defines them: equal bytes on every machine.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino import layers

WEIGHT_LIMIT: Final = 127
LEAST_SCALE: Final = np.float32(1e-8)


@dataclass(frozen=True, slots=True)
class InputLevels:
    """The 256 levels to which a convolution's input is rounded.

    scale: float16 `[I]`, positive: the input's channels are divided by it first. low, high: ends of
    the range of levels, of the divided input; 0 is one of the levels.
    """

    scale: NDArray[np.float16]
    low: float
    high: float


def is_among(convolution: str, names: Collection[str]) -> bool:
    """Return whether `names` holds the convolution, or a block that it is part of."""
    return any(convolution == name or convolution.startswith(f"{name}.") for name in names)


def round_layers(
    state: Mapping[str, layers.Floats],
    levels: Mapping[str, InputLevels],
    float_layers: Collection[str],
) -> layers.Layers:
    """Return the layers of a network in 8 bits.

    Args:
        state: float32 weights and biases by name.
        levels: by convolution, or by its group (`NetworkFamily.input_group`).
        float_layers: convolutions, or blocks of them (`body.3`), that stay in floats.
    """
    floats = layers.layers_of(state)
    return layers.Layers(
        convolutions={
            name: layer
            if is_among(name, float_layers)
            else round_convolution(layer, _levels_of(name, levels))
            for name, layer in floats.convolutions.items()
        },
        slopes=floats.slopes,
    )


def _levels_of(name: str, levels: Mapping[str, InputLevels]) -> InputLevels:
    group = name.rpartition(".")[0]
    return levels[group if group in levels else name]


def round_convolution(layer: layers.Convolution, levels: InputLevels) -> layers.Convolution:
    """Round one layer: each output channel's weights become multiples of its own scale."""
    scale = levels.scale[: layer.weight.shape[1]].astype(np.float32)
    weight = layer.weight * scale.reshape(1, -1, 1, 1)
    step = np.maximum(np.abs(weight).max((1, 2, 3)) / np.float32(WEIGHT_LIMIT), LEAST_SCALE)
    whole = np.rint(weight / step.reshape(-1, 1, 1, 1))
    return layers.Convolution(
        np.clip(whole, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8),
        layer.bias,
        layers.Quantisation(step, levels.low, levels.high, scale),
    )


def cut_to_half(state: Mapping[str, layers.Floats]) -> dict[str, layers.Floats]:
    """Round weights (not biases) to float16 towards 0, as float32.

    The makers of ncnn's 16-bit files round this way: the weights of a release's file in 32 bits
    become exactly those of the file in 16 bits, which stay as they are.
    """
    return {key: _cut(value) if value.ndim == 4 else value for key, value in state.items()}


def _cut(values: layers.Floats) -> layers.Floats:
    half = values.astype(np.float16)
    is_larger = np.abs(half.astype(np.float32)) > np.abs(values)
    return np.where(is_larger, np.nextafter(half, np.float16(0)), half).astype(np.float32)
