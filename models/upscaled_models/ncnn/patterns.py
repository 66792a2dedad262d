"""Match the graph of an ncnn pair with that of a network, from the result back to the picture.

The place in the graph names a weight, not that in the file or a layer's name. `BadParam` names the
layer where a graph departs from the network's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import KINDS, Kind, Value

Tensors = Mapping[str, Weights]


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A value of a network's graph, compared by identity.

    numbers: see `Value`; None: any. name: of the module with the value's weights in the state dict;
    empty without any. channels, kernel_px: of a convolution.
    """

    kind: Kind
    sources: tuple["Pattern", ...] = ()
    numbers: tuple[float, ...] | None = ()
    name: str = ""
    channels: int = 0
    kernel_px: int = 0


def convolve(x: Pattern, name: str, channels: int, kernel_px: int = 3) -> Pattern:
    return Pattern("convolution", (x,), (), name, channels, kernel_px)


def join(parts: Sequence[Pattern]) -> Pattern:
    return Pattern("join", tuple(parts)) if len(parts) > 1 else parts[0]


def add(x: Pattern, y: Pattern, factor: float = 1.0) -> Pattern:
    """Return `factor * x + y`."""
    return Pattern("sum", (x, y), (factor, 1.0))


def match_graph(result: Value, pattern: Pattern, network: str) -> dict[Pattern, Value]:
    """Return the value that matches each part of the graph of `network` ("an RRDB network")."""
    found: dict[Pattern, Value] = {}
    waiting = [(pattern, result)]
    while waiting:
        wanted, value = waiting.pop()
        if wanted not in found:
            _check(wanted, value, network)
            found[wanted] = value
            sources = _order_sources(wanted, value, found, network)
            waiting += zip(wanted.sources, sources, strict=True)
        elif found[wanted] is not value:
            raise BadParam(f"{value.layer}: {network} reads {found[wanted].layer} here")
    return found


def name_weights(found: Mapping[Pattern, Value]) -> dict[str, Weights]:
    """Return the weights of all named parts of a network by their names in the state dict."""
    return {
        f"{pattern.name}.{part}": weights
        for pattern, value in found.items()
        if pattern.name
        for part, weights in value.weights.items()
    }


def _check(wanted: Pattern, value: Value, network: str) -> None:
    """Check all of a value but its numbers and which its sources are."""
    if value.kind != wanted.kind:
        raise BadParam(f"{value.layer}: {network} has {KINDS[wanted.kind]} here")
    kernel_px = value.weights["weight"].shape[2] if wanted.kernel_px else 0
    for has, must_have, meaning in (
        (len(value.sources), len(wanted.sources), "sources"),
        (value.channels if wanted.channels else 0, wanted.channels, "channels"),
        (kernel_px, wanted.kernel_px, "pixels as its kernel's side"),
    ):
        if has != must_have:
            raise BadParam(f"{value.layer}: has {has} {meaning}, in {network} {must_have}")


def _order_sources(
    wanted: Pattern, value: Value, found: Mapping[Pattern, Value], network: str
) -> Sequence[Value]:
    """Return a value's sources in the order of the pattern's: those of a sum have any."""
    if wanted.kind not in ("sum", "product"):
        if not _are_close(wanted.numbers, value.numbers):
            has, must_have = (
                ", ".join(f"{number:g}" for number in numbers or ()) or "each channel's own"
                for numbers in (value.numbers, wanted.numbers)
            )
            raise BadParam(
                f"{value.layer}: {KINDS[value.kind]} by {has}, in {network} by {must_have}"
            )
        return value.sources
    orders = [
        value.sources[::step]
        for step in (1, -1)
        if _are_close(wanted.numbers, value.numbers[::step])
        and all(map(_may_match, wanted.sources, value.sources[::step], [found] * 2))
    ]
    if not orders:
        raise BadParam(f"{value.layer}: {network} has another {value.kind} here")
    return max(orders, key=lambda order: sum(map(_reads_alike, wanted.sources, order)))


def _are_close(wanted: tuple[float, ...] | None, numbers: tuple[float, ...]) -> bool:
    if wanted is None:
        return True
    pairs = zip(wanted, numbers, strict=False)
    return len(wanted) == len(numbers) and all(math.isclose(*pair, rel_tol=1e-6) for pair in pairs)


def _may_match(wanted: Pattern, value: Value, found: Mapping[Pattern, Value]) -> bool:
    return found[wanted] is value if wanted in found else wanted.kind == value.kind


def _reads_alike(wanted: Pattern, value: Value) -> bool:
    """Return whether the sources are of the same kinds, by which two convolutions differ."""
    return [each.kind for each in wanted.sources] == [each.kind for each in value.sources]
