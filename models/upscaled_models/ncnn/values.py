"""What an ncnn network's layers give: values that refer to the values they are made of."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What a layer gives: `channels` planes. Compared by identity: two layers are two values."""

    layer: Layer
    channels: int


@dataclass(frozen=True, slots=True, eq=False)
class Image(Value):
    """The network's input."""


@dataclass(frozen=True, slots=True, eq=False)
class Convolved(Value):
    """3x3 with one pixel of zeros around, or 1x1; stride 1; weight [out, in, k, k], bias [out]."""

    source: Value
    weight: Weights
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Activated(Value):
    """Negative values times `slope`: one number, or one for each channel (PReLU)."""

    source: Value
    slope: float | NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Curved(Value):
    """A curve of every value: sigmoid(x), or x sigmoid(x) ("swish")."""

    source: Value
    kind: Literal["sigmoid", "swish"]


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Value):
    """One number for each channel, `[C]`."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Shifted(Value):
    """Plus a number, or plus one for each channel (`[C]`)."""

    source: Value
    offset: float | NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Multiplied(Value):
    """The product of two values."""

    first: Value
    second: Value


@dataclass(frozen=True, slots=True, eq=False)
class Joined(Value):
    """Channels behind one another; no part is itself a `Joined`."""

    parts: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scaled(Value):
    """Times a number, outside a sum."""

    source: Value
    factor: float


@dataclass(frozen=True, slots=True, eq=False)
class Summed(Value):
    """The sum of values, each times a number."""

    terms: tuple[tuple[float, Value], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Enlarged(Value):
    """Each pixel `factor` times in both directions: nearest neighbour."""

    source: Value
    factor: int


@dataclass(frozen=True, slots=True, eq=False)
class Unfolded(Value):
    """torch's `pixel_shuffle`: channels to pixels."""

    source: Value
    factor: int


@dataclass(frozen=True, slots=True, eq=False)
class Folded(Value):
    """torch's `pixel_unshuffle`: pixels to channels."""

    source: Value
    factor: int
