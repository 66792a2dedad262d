"""Estimate the seconds that a worker takes to open a model at a strength of denoising.

Each strength is an engine of its own, which a worker opens for the first image that asks for it and
keeps for a while (`MAX_STRENGTHS` of them). Loads neither torch nor numpy.
"""

from collections import OrderedDict
from typing import Final

from upscaled_models.registry import MAX_STRENGTHS, split_strength

_FIRST_S: Final = 2.0
"""The estimate before the first opening. On two cores an opening took 0.5 s, and 4 s for a strength
that was new on the machine, whose precision is checked first."""

_NEWEST_WEIGHT: Final = 0.3
"""The weight of the newest opening in the moving average."""


class Openings:
    """Strengths of denoising that workers have in memory, and the mean time to open one.

    Treats all workers as one: with several, an estimate may miss an opening at each of the others.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._mean_s = _FIRST_S

    def note(self, model: str, opening_s: float) -> None:
        """Record an image that a worker has upscaled, and how long it waited for its model."""
        if split_strength(model)[1] is None:
            return
        if model not in self._kept:
            self._mean_s += _NEWEST_WEIGHT * (opening_s - self._mean_s)
        self._kept[model] = None
        self._kept.move_to_end(model)
        while len(self._kept) > MAX_STRENGTHS:
            self._kept.popitem(last=False)

    def expect_s(self, model: str) -> float:
        """Return the seconds that the next image of a model will wait for it."""
        is_open = split_strength(model)[1] is None or model in self._kept
        return 0.0 if is_open else self._mean_s
