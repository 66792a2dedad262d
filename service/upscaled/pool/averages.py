"""Averages over the images that workers have finished, from which `pool.cost` estimates.

They are moving ones: the newest image counts most. Loads neither torch nor numpy.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple

from upscaled_models.registry import MAX_STRENGTHS, split_strength

_NEWEST_WEIGHT: Final = 0.3
"""The weight of the newest image in a moving average."""

_SHARES_REMEMBERED: Final = 1000
"""Most averages that `Shares` keeps; the one that was updated least recently is dropped."""

_FIRST_OPENING_S: Final = 2.0
"""The estimate before the first opening. On two cores an opening took 0.5 s, and 4 s for a strength
that was new on the machine, whose precision is checked first."""


class Measured(NamedTuple):
    """Seconds and pixels of images that are finished, older ones counted ever less."""

    worked_s: float = 0.0
    px: float = 0.0

    @property
    def s_per_px(self) -> float:
        return self.worked_s / self.px

    def then(self, worked_s: float, px: int) -> "Measured":
        """Return the sums with one more image, older ones counting less."""
        old = 1 - _NEWEST_WEIGHT
        return Measured(old * self.worked_s + worked_s, old * self.px + px)


class Shares:
    """Moving averages of shares, from 0 to 1, by names that are given from narrow to wide.

    A name without an average has that of the next wider one, the widest one `first`.
    """

    def __init__(self) -> None:
        self._by_name: OrderedDict[Hashable, float] = OrderedDict()

    def of(self, *names: Hashable, first: float) -> float:
        """Return the average of the narrowest name that has one, else `first`."""
        return next((self._by_name[name] for name in names if name in self._by_name), first)

    def note(self, share: float, *names: Hashable, first: float) -> None:
        """Count a share in the average of each name."""
        for at, name in enumerate(names):
            before = self.of(*names[at:], first=first)
            self._by_name[name] = before + _NEWEST_WEIGHT * (share - before)
            self._by_name.move_to_end(name)
        while len(self._by_name) > _SHARES_REMEMBERED:
            self._by_name.popitem(last=False)


class Openings:
    """Strengths of denoising that workers have in memory, and the mean time to open one.

    Each strength is an engine of its own, which a worker opens at the first image of that strength;
    the last `MAX_STRENGTHS` stay open. All workers are treated as one: with several, an estimate
    may miss an opening at each of the others.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, None] = OrderedDict()
        self._mean_s = _FIRST_OPENING_S

    def note(self, model: str, opening_s: float) -> None:
        """Record an image that a worker has upscaled, and how long it waited for its model."""
        if split_strength(model)[1] is None:
            return
        if model not in self._open:
            self._mean_s += _NEWEST_WEIGHT * (opening_s - self._mean_s)
        self._open[model] = None
        self._open.move_to_end(model)
        while len(self._open) > MAX_STRENGTHS:
            self._open.popitem(last=False)

    def expect_s(self, model: str) -> float:
        """Return the seconds that the next image of a model will wait for it."""
        is_open = split_strength(model)[1] is None or model in self._open
        return 0.0 if is_open else self._mean_s
