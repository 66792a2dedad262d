"""The results of an ncnn network's layers: values that refer to the values they are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import ParamLayer

Kind = Literal[
    "input", "convolution", "relu", "prelu", "sigmoid", "swish", "constant", "shift", "scale",
    "product", "join", "sum", "enlargement", "shuffle", "unshuffle",
]  # fmt: skip

KINDS: Final[Mapping[Kind, str]] = {
    "input": "the picture",
    "convolution": "a convolution",
    "relu": "ReLU or LeakyReLU",
    "prelu": "PReLU",
    "sigmoid": "a sigmoid",
    "swish": "a swish",
    "constant": "kept numbers",
    "shift": "a sum with a number",
    "scale": "a product with a number",
    "product": "a product",
    "join": "joined values",
    "sum": "a sum",
    "enlargement": "an enlargement",
    "shuffle": "a pixel shuffle",
    "unshuffle": "a pixel unshuffle",
}
"""Every kind of value, as error texts name it."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """The result of a layer: `channels` planes. Compared by identity: two layers, two values.

    numbers: the slope of "relu", the number of "shift" and "scale", the factor of "enlargement"
    (nearest neighbour), "shuffle" and "unshuffle", and the factor of each source of a "sum".
    weights: "weight" `[out, in, k, k]` and "bias" `[out]` of a convolution (stride 1, k // 2 pixels
    of zeros around), "weight" `[C]` of "prelu", "values" `[C]` of "constant", "offset" `[C]` of a
    "shift" by one number for each channel. No source of a "join" is itself a "join".
    """

    layer: ParamLayer
    kind: Kind
    channels: int
    sources: tuple["Value", ...] = ()
    numbers: tuple[float, ...] = ()
    weights: Mapping[str, Weights] = field(default_factory=dict)
