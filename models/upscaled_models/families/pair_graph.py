"""Graphs of networks, by which a family recognises its networks in ncnn pairs (`ncnn`).

A pair holds values, each of the layer that makes it; a family describes its own graph by patterns.
Loads no numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

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
    "constant": "constants",
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


class GraphValue(Protocol):
    """A value of a pair's graph, without its weights: see `ncnn.graph.Value`."""

    @property
    def layer(self) -> object: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def channels(self) -> int: ...
    @property
    def sources(self) -> Sequence["GraphValue"]: ...
    @property
    def numbers(self) -> tuple[float, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A value of a network's graph, compared by identity.

    numbers: see `ncnn.graph.Value`; None: any, and the state dict holds what is subtracted
    ("shift") or the factor ("scale") under `name`. name: else of the module with the value's
    weights in the state dict; empty without any. channels, kernel_px: of a convolution.
    """

    kind: Kind
    sources: tuple["Pattern", ...] = ()
    numbers: tuple[float, ...] | None = ()
    name: str = ""
    channels: int = 0
    kernel_px: int = 0


def convolve(x: Pattern, name: str, channels: int, kernel_px: int = 3) -> Pattern:
    return Pattern("convolution", (x,), (), name, channels, kernel_px)


def activate(x: Pattern, slope: float | None, name: str = "") -> Pattern:
    """Return LeakyReLU or ReLU of `x`, or PReLU, where the slopes are weights."""
    return Pattern("prelu", (x,), (), name) if slope is None else Pattern("relu", (x,), (slope,))


def join(parts: Sequence[Pattern]) -> Pattern:
    return Pattern("join", tuple(parts)) if len(parts) > 1 else parts[0]


def add(x: Pattern, y: Pattern, factor: float = 1.0) -> Pattern:
    """Return `factor * x + y`."""
    return Pattern("sum", (x, y), (factor, 1.0))


def is_of_picture(value: GraphValue, kind: Kind) -> bool:
    """Return whether a value of that kind is made of the picture, folded or normalised at most."""
    if value.kind != kind:
        return False
    source = value.sources[0]
    while source.kind in ("unshuffle", "shift", "scale"):
        source = source.sources[0]
    return source.kind == "input"


def count_convolutions(values: Sequence[GraphValue]) -> int:
    return sum(value.kind == "convolution" for value in values)
