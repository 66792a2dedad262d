"""The families of networks that run here: one module each, and the one table of them.

Loads neither torch nor numpy. How a family runs is the other table: `networks.table`.
"""

from collections.abc import Collection, Mapping
from typing import Final, Literal

from upscaled_models.families.base import NetworkFamily, Shape, Sizes, UnknownArchitecture
from upscaled_models.families.compact import CompactFamily
from upscaled_models.families.plain import PlainFamily
from upscaled_models.families.realplksr import RealPlksrFamily
from upscaled_models.families.rrdb import RrdbFamily
from upscaled_models.families.span import SpanFamily

__all__ = [
    "FAMILIES",
    "Family",
    "NetworkFamily",
    "Shape",
    "Sizes",
    "UnknownArchitecture",
    "check_shape",
    "find_new_names",
    "recognise",
]

Family = Literal["rrdb", "srvgg", "span", "realplksr", "plain"]

FAMILIES: Final[Mapping[Family, NetworkFamily]] = {
    "rrdb": RrdbFamily(),
    "srvgg": CompactFamily(),
    "span": SpanFamily(),
    "realplksr": RealPlksrFamily(),
    "plain": PlainFamily(),
}


def check_shape(family: Family, shape: Shape) -> None:
    """Refuse (ValueError) a shape that no network of that family has, before one is built."""
    arguments, optional = FAMILIES[family].example, FAMILIES[family].optional
    if not arguments.keys() <= shape.keys() <= arguments.keys() | optional.keys():
        taken = ", ".join([*arguments, *(f"perhaps {name}" for name in optional)])
        raise ValueError(f"{family} takes {taken}, not {', '.join(shape)}")
    try:
        FAMILIES[family].check_shape(shape)
    except ValueError as error:
        raise ValueError(f"{family} {error}") from error


def find_new_names(names: Collection[str]) -> dict[str, str]:
    """Map each name of an older file's weights to today's; empty for any other names."""
    return next((new for each in FAMILIES.values() if (new := each.new_names(names))), {})


def recognise(sizes: Sizes) -> tuple[Family, Shape]:
    """Find the family and shape of a network by the names and sizes of its weights alone.

    Few weights show the shape; strict loading (`upscaled_models.weights`) checks all others. What
    is none of the known networks raises `UnknownArchitecture`.
    """
    for name, family in FAMILIES.items():
        if family.recognises(sizes.keys()):
            shape = family.shape_of(sizes)
            try:
                check_shape(name, shape)
            except ValueError as error:
                raise UnknownArchitecture(str(error)) from error
            return name, shape
    first = ", ".join(sorted(sizes)[:3]) or "none"
    raise UnknownArchitecture(f"no network known here has weights named like these: {first}")
