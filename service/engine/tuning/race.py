"""Timing candidates in full windows, in turn, so that other work on the machine disturbs all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.engine.engine import EngineOutOfMemory
from service.engine.tuning.trial import Budget, Expected, Refused, Trial, time_batch

ROUNDS: Final = 4
"""The first is for warming up and is counted only where no time is left for a second."""

MAX_BATCH_S: Final = 15.0
"""Longest that one batch may take: a cancelled image goes on for so long."""

WORTH_A_LONG_TURN: Final = 1.5
"""RRDB's halo leaves windows of 128 px a quarter of what they compute, those of 256 px more than
twice as much: nobody gains from turns that are short because most of the work is thrown away."""

WORTH_RATIO: Final = 0.97
"""Larger windows and batches must gain more than the noise: smaller ones let others in sooner."""


@dataclass(slots=True)
class Contender:
    """A proven candidate in one size. ns_per_px: for each pixel kept, infinite until it ran."""

    trial: Trial
    window_px: int
    batch: int
    ns_per_px: float = float("inf")
    fault: str = ""

    @property
    def likely_s(self) -> float:
        """How long a batch will take, by what a picture took."""
        return self.trial.ns_per_px * 1e-9 * self.batch * self.window_px**2

    @property
    def turn_s(self) -> float:
        """How long a batch took."""
        kept_px = max(1, self.window_px - 2 * self.trial.engine.halo_px) ** 2
        return self.ns_per_px * 1e-9 * self.batch * kept_px


def race(
    contenders: Sequence[Contender], expected: Expected, budget: Budget, turn_s: float
) -> Contender | None:
    """Time all that fit the device, the budget and `MAX_BATCH_S`; the fastest, or None if none did.

    Those whose turns are no longer than `turn_s` come before all others, unless these are far
    faster. Of two that are about as fast, the one that lets others in sooner. A contender whose
    result is wrong is left with its `fault` and no time.
    """
    running = [each for each in contenders if each.likely_s <= MAX_BATCH_S]
    for _ in range(ROUNDS):
        running = [each for each in running if _run(each, expected, budget)]
    timed = [each for each in contenders if not each.fault and each.ns_per_px < float("inf")]
    short = [each for each in timed if each.turn_s <= turn_s]
    if short and _least_ns(short) <= WORTH_A_LONG_TURN * _least_ns(timed):
        timed = short
    best: Contender | None = None
    for each in sorted(timed, key=lambda each: each.batch * each.window_px**2):
        if best is None or each.ns_per_px < best.ns_per_px * _handicap(best, each):
            best = each
    return best


def _run(contender: Contender, expected: Expected, budget: Budget) -> bool:
    """Whether it may run again."""
    if not budget.allows(contender.likely_s):
        return False
    size = contender.window_px, contender.batch
    try:
        ns_per_px = time_batch(contender.trial, expected, *size)
    except EngineOutOfMemory:
        return False
    except Refused as error:
        contender.fault = str(error)
        return False
    contender.ns_per_px = min(contender.ns_per_px, ns_per_px)
    return True


def _least_ns(timed: Sequence[Contender]) -> float:
    return min(each.ns_per_px for each in timed)


def _handicap(smaller: Contender, larger: Contender) -> float:
    is_same = (smaller.window_px, smaller.batch) == (larger.window_px, larger.batch)
    return 1.0 if is_same else WORTH_RATIO
