"""The results of an ncnn network's layers: values that refer to the values they are made of."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import ParamLayer


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """The result of a layer: `channels` planes. Compared by identity: two layers, two values."""

    layer: ParamLayer
    channels: int


@dataclass(frozen=True, slots=True, eq=False)
class Input(Value):
    """The network's input."""


@dataclass(frozen=True, slots=True, eq=False)
class Derived(Value):
    """A value that is made of one other, its source."""

    source: Value


@dataclass(frozen=True, slots=True, eq=False)
class Convolved(Derived):
    """3x3 with one pixel of zeros around, or 1x1; stride 1; weight [out, in, k, k], bias [out]."""

    weight: Weights
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Activated(Derived):
    """Negative values times `slope`: one number, or one for each channel (PReLU)."""

    slope: float | NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Curved(Derived):
    """A curve of every value: sigmoid(x), or x sigmoid(x) ("swish")."""

    kind: Literal["sigmoid", "swish"]


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Value):
    """One number for each channel, `[C]`."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Shifted(Derived):
    """Plus a number, or plus one for each channel (`[C]`)."""

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
class Scaled(Derived):
    """Times a number, outside a sum."""

    factor: float


@dataclass(frozen=True, slots=True, eq=False)
class Summed(Value):
    """The sum of values, each times a number."""

    terms: tuple[tuple[float, Value], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Enlarged(Derived):
    """Each pixel `factor` times in both directions: nearest neighbour."""

    factor: int


@dataclass(frozen=True, slots=True, eq=False)
class Unfolded(Derived):
    """Channels as pixels: torch's `pixel_shuffle`."""

    factor: int


@dataclass(frozen=True, slots=True, eq=False)
class Folded(Derived):
    """Pixels as channels: torch's `pixel_unshuffle`."""

    factor: int
