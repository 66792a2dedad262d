"""Scopes: what an API key may be used for.

A key that names none may do everything, also what a later version adds.
"""

from collections.abc import Collection
from typing import Final, Literal, get_args

from upscaled.state.errors import InvalidScope

Scope = Literal["upscale", "jobs", "credits"]
"""upscale: send images, and watch their progress. jobs: have them become jobs, and list, read and
cancel these. credits: read the balance."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

Scopes = frozenset[str] | None
"""The scopes of a key; None: all."""


def check_scopes(scopes: Scopes) -> None:
    """Raise InvalidScope for none at all, or for one that there is not."""
    if scopes is None:
        return
    unknown = sorted(scopes - set(SCOPES))
    if unknown or not scopes:
        what = f"{unknown[0]!r} is no scope" if unknown else "no scope at all"
        raise InvalidScope(f"{what}: name one or more of {', '.join(SCOPES)}")


def write_scopes(scopes: Scopes) -> str | None:
    """Return the column of scopes, in the order of `SCOPES`; None for all."""
    return None if scopes is None else ",".join(order_scopes(scopes))


def read_scopes(column: str | None) -> Scopes:
    """Return the scopes in a column."""
    return None if column is None else frozenset(column.split(","))


def order_scopes(scopes: Collection[str]) -> list[str]:
    """Return scopes in the order of `SCOPES`."""
    return [scope for scope in SCOPES if scope in scopes]
