"""Name a model at a strength of denoising, which mixes its weights with its partner's.

`realesr-general-x4v3@0.4` is realesr-general-x4v3 with 0.4 of its own weights, which remove noise,
and 0.6 of those of its partner (`ModelSpec.wdn`), which keeps it (`weights.mix_states`). Code that
opens, counts and times models treats each such name as a model of its own; no file has one.
Loads neither torch nor numpy.
"""

import math
import re
from typing import Final

STEPS: Final = 10
"""Strengths that have a name are multiples of 1 / `STEPS`: each is an engine in memory, and finer
steps are hardly seen."""

MAX_STRENGTHS: Final = 3
"""Strengths that a process keeps in memory when nothing uses them: a client that tries a few gets
each again without a wait. Each has the memory of the model itself."""

_STRENGTH: Final = re.compile(r"([^@]+)@(0\.[0-9]|1\.0)", re.ASCII)


def round_strength(strength: float) -> float:
    """Round a strength to the nearest multiple of 1 / `STEPS`, ties to the stronger.

    Args:
        strength: from 0 to 1.
    """
    return math.floor(strength * STEPS + 0.5) / STEPS


def name_strength(model: str, strength: float) -> str:
    """Return the name of a model at a strength of denoising.

    Args:
        model: the model's own name, or its name at another strength.
        strength: from 0 to 1; it is rounded.

    Raises:
        ValueError: the strength is out of range.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"a strength of denoising is in 0..1, not {strength}")
    return f"{split_strength(model)[0]}@{round_strength(strength):.1f}"


def split_strength(name: str) -> tuple[str, float | None]:
    """Split a name into the model's own name and its strength, None if the name gives none."""
    match = _STRENGTH.fullmatch(name)
    return (name, None) if match is None else (match[1], float(match[2]))
