"""Paired test: which of two candidates is faster, by the ratios of runs that were side by side.

After each pair Student's interval of the mean logarithm of the ratios says whether the order is
settled: it lies on one side of 1, or so near to 1 that either may be chosen (repeated confidence
intervals: Jennison and Turnbull, Sequential Analysis 12, 1993). Ten looks at 99 % make 95 % for all
of them (Pocock, Biometrika 64, 1977: 0.0106 at each of ten).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean, stdev
from typing import Final

from upscaled_models.autotune.timing import Timing, cost_ratio

MIN_PAIRS: Final = 3
MAX_PAIRS: Final = 12
"""From the third to the twelfth pair: ten looks."""

SAME_RATIO: Final = 1.05
"""Two that differ by less count as equally fast: half of the tenth by which a choice may be slower
than the best, for two such steps may lead to the chosen one."""

_T_99: Final[Sequence[float]] = (
    *(9.925, 5.841, 4.604, 4.032, 3.707),
    *(3.499, 3.355, 3.250, 3.169, 3.106),
)
"""Student's t for two-sided 99 %, from 2 degrees of freedom (`MIN_PAIRS` pairs) upwards."""


class Outcome(StrEnum):
    """How the cost of the other of two compares with that of the best so far."""

    FASTER = "faster"
    SLOWER = "slower"
    AS_FAST = "as fast"
    OPEN = "not settled"


@dataclass(frozen=True, slots=True)
class RatioEstimate:
    """The other's cost divided by the best's: above 1 it is slower. low, high: the interval;
    the ratio itself, infinitely uncertain, before there are `MIN_PAIRS`.
    """

    ratio: float
    low: float
    high: float
    pairs: int


@dataclass(slots=True)
class PairedTest:
    """A test under way. max_ratio: the ratio that the other's cost has to stay below."""

    max_ratio: float = 1.0
    logs: list[float] = field(default_factory=list)

    def add(self, other: Timing, best: Timing, weight: float = 1.0) -> None:
        """Add a pair of runs; `weight` multiplies the ratio where their work was unequal."""
        self.logs.append(math.log(cost_ratio(other, best) * weight))

    @property
    def is_exhausted(self) -> bool:
        return len(self.logs) >= MAX_PAIRS

    @property
    def estimate(self) -> RatioEstimate:
        if not self.logs:
            return RatioEstimate(1.0, 0.0, math.inf, 0)
        mean = fmean(self.logs)
        if len(self.logs) < MIN_PAIRS:
            return RatioEstimate(math.exp(mean), 0.0, math.inf, len(self.logs))
        half = _T_99[len(self.logs) - MIN_PAIRS] * stdev(self.logs) / math.sqrt(len(self.logs))
        low, high = math.exp(mean - half), math.exp(mean + half)
        return RatioEstimate(math.exp(mean), low, high, len(self.logs))

    @property
    def outcome(self) -> Outcome:
        """Compare the interval with `max_ratio`."""
        estimate = self.estimate
        if (
            estimate.low > self.max_ratio / SAME_RATIO
            and estimate.high < self.max_ratio * SAME_RATIO
        ):
            return Outcome.AS_FAST
        if estimate.high < self.max_ratio:
            return Outcome.FASTER
        if estimate.low > self.max_ratio:
            return Outcome.SLOWER
        return Outcome.OPEN

    def is_beyond(self, factor: float) -> bool:
        """Return whether one is settled to be more than `factor` times as fast as the other."""
        return self.estimate.low > factor or self.estimate.high < 1 / factor
