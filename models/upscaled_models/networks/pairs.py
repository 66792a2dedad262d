"""The table of the networks that ncnn pairs may hold, by the kind of their last layer.

The walk of each goes from the result back to the input and accepts nothing but what the network's
own `forward` does, so the position in the graph names a weight, not that in the file or a layer's
name: `BadParam` names the layer where it departs. Loads no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from upscaled_models.families import Family, Shape
from upscaled_models.ncnn.checks import Tensors
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import Convolved, Summed, Unfolded, Value
from upscaled_models.networks.compact_pair import match_compact
from upscaled_models.networks.rrdb_pair import match_rrdb
from upscaled_models.networks.span_pair import match_span


@dataclass(frozen=True, slots=True)
class PairPattern:
    """A row: the last layer's kind, by which a family is known, and the walk from there.

    network, ending: with their articles, for error texts.
    """

    family: Family
    last: type[Value]
    match: Callable[[Any], tuple[Shape, Tensors]]
    network: str
    ending: str


PATTERNS: Final[Sequence[PairPattern]] = (
    PairPattern("rrdb", Convolved, match_rrdb, "an RRDB network", "a convolution"),
    PairPattern("srvgg", Summed, match_compact, "a compact network", "a sum"),
    PairPattern("span", Unfolded, match_span, "a SPAN network", "a pixel shuffle"),
)


def match_network(result: Value) -> tuple[Family, Shape, Tensors]:
    """Find the network that has this result: its family, shape and state dict.

    The state dict has the names of the family's published files; its values keep their precision.
    """
    for pattern in PATTERNS:
        if isinstance(result, pattern.last):
            return pattern.family, *pattern.match(result)
    first, *others = PATTERNS
    known = [f"the last layer of {first.network} is {first.ending}"]
    known += [f"that of {each.network} {each.ending}" for each in others]
    raise BadParam(f"{result.layer}: {', '.join(known)}; this is none of them")
