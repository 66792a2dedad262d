"""Find the network that an ncnn pair holds: match its graph from the result back to the picture.

Weights are named by their place in the graph, not by that in the file or by a layer's name.
`BadParam` names the layer where a graph departs from the network's.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from upscaled_models.families import FAMILIES, Family, Shape, check_shape
from upscaled_models.families.pair_graph import KINDS, Pattern
from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.graph import Value
from upscaled_models.ncnn.param import BadParam

Tensors = Mapping[str, Weights]


def match_network(result: Value) -> tuple[Family, Shape, Tensors]:
    """Find the network that has this result: its family, shape and (in its precision) state dict.

    Raises:
        BadParam: it is none that is known; the text names the layer where it departs.
        ValueError: no network of its family has such a shape.
    """
    for name, family in FAMILIES.items():
        if family.pair_result == result.kind:
            values = _list_values(result)
            shape = family.pair_shape(values)
            check_shape(name, shape)
            found = match_graph(result, family.pair_graph(shape, values), family.pair_network)
            defaults = family.pair_defaults.items()
            tensors = {tensor: np.array(numbers, np.float32) for tensor, numbers in defaults}
            return name, shape, tensors | name_weights(found)
    ends = ", that of ".join(
        f"{each.pair_network} is {KINDS[each.pair_result]}"
        for each in FAMILIES.values()
        if each.pair_result
    )
    raise BadParam(f"{result.layer}: the last layer of {ends}; this is none of them")


def _list_values(result: Value) -> list[Value]:
    """List all values that lead to the result, each once; the result is the first."""
    found = {result: None}
    waiting = [result]
    while waiting:
        new = [each for each in waiting.pop().sources if each not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


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
    named: dict[str, Weights] = {}
    for pattern, value in found.items():
        if pattern.name and pattern.numbers is None:
            named[pattern.name] = _numbers_as_weights(value)
        elif pattern.name:
            named |= {f"{pattern.name}.{part}": own for part, own in value.weights.items()}
    return named


def _numbers_as_weights(value: Value) -> Weights:
    """Return what a "shift" subtracts, `[C]`, or a "scale" multiplies with, `[1]`, in float32."""
    numbers = np.asarray(value.numbers, np.float32)
    if value.kind == "scale":
        return numbers
    offset = value.weights.get("offset", numbers).astype(np.float32)
    return np.broadcast_to(-offset, (value.channels,)).copy()


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
