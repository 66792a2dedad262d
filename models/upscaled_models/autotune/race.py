"""Race two candidates, or two sizes of one, in runs that alternate until their order is settled.

Races are generators: they yield after each run and are sent whether that run was undisturbed.
"""

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from upscaled_models.autotune.paired import MAX_PAIRS, Outcome, PairedTest
from upscaled_models.autotune.pictures import fill_window
from upscaled_models.autotune.space import MAX_BATCH_S
from upscaled_models.autotune.timing import Timing
from upscaled_models.autotune.trial import OpenCandidate, Reference, TimeBudget, require_picture
from upscaled_models.backends.base import Window
from upscaled_models.errors import EngineOutOfMemory

T = TypeVar("T")
Steps = Generator[None, bool, T]
"""Yields after each run, and is sent whether this process had no other work during it."""


def drive(steps: Steps[T]) -> T:
    """Run to the end in this thread, every run counted as undisturbed."""
    try:
        next(steps)
        while True:
            steps.send(True)
    except StopIteration as end:
        result: T = end.value
        return result


@dataclass(slots=True)
class SizedCandidate:
    """A candidate in one size, its accuracy checked. timings: of its full batches."""

    trial: OpenCandidate
    window_px: int
    batch: int
    timings: list[Timing] = field(default_factory=list)

    @property
    def px(self) -> int:
        """Return the pixels of a batch, all of which the network computes."""
        return self.batch * self.window_px**2

    @property
    def kept_px(self) -> int:
        """Return the pixels of a batch without its halos."""
        return self.batch * max(1, self.window_px - 2 * self.trial.engine.info.spec.halo_px) ** 2

    @property
    def batch_s(self) -> float:
        """Return the cost of a batch: measured, or else estimated from a picture's."""
        if not self.timings:
            return self.trial.ns_per_px * 1e-9 * self.px
        return median(each.cost_s for each in self.timings)

    @property
    def ns_per_px(self) -> float:
        """Return the cost of a pixel that the network computes."""
        return self.batch_s * 1e9 / self.px


@dataclass(frozen=True, slots=True)
class Race:
    """Comparisons of candidates. expected: float32's results for the pictures that they run."""

    expected: Reference
    budget: TimeBudget

    def enter(self, sized: SizedCandidate) -> bool:
        """Run a candidate once in its size, which makes its kernels; False if it does not fit."""
        if sized.batch_s > MAX_BATCH_S:
            return False
        try:
            results, _ = sized.trial.run(self._windows(sized))
        except EngineOutOfMemory:
            return False
        for result in results if sized.trial.proof else []:
            require_picture(result, self.expected, sized.trial)
        return True

    def run(
        self,
        best: SizedCandidate,
        other: SizedCandidate,
        max_ratio: float = 1.0,
        most_pairs: int = MAX_PAIRS,
        enough: float | None = None,
    ) -> Steps[PairedTest]:
        """Compare the cost of a pixel without halos, until the order is settled or the budget ends.

        Args:
            max_ratio: see `PairedTest`.
            enough: end as soon as one is settled to be more than so many times as fast; None: as
                soon as the order is settled.
        """
        test = PairedTest(max_ratio)
        weight = best.kept_px / other.kept_px
        while len(test.logs) < most_pairs and not _is_decided(test, enough):
            if not self.budget.allows(_likely_s(best) + _likely_s(other)):
                break
            pair = (best, other) if len(test.logs) % 2 == 0 else (other, best)
            try:
                is_undisturbed = yield from self._run_pair(*pair)
            except EngineOutOfMemory:  # other work on the device needs the memory now
                break
            if is_undisturbed:
                test.add(other.timings[-1], best.timings[-1], weight)
        return test

    def time(self, sized: SizedCandidate) -> Steps[None]:
        """Time a candidate that was compared in pictures alone, if the budget allows."""
        if not sized.timings and self.budget.allows(2 * sized.batch_s):
            with suppress(EngineOutOfMemory):
                yield from self._run_pair(sized, sized)

    def _run_pair(self, first: SizedCandidate, second: SizedCandidate) -> Steps[bool]:
        """Run both; True where this process had no other work, and only then are both kept."""
        is_undisturbed = True
        timings = []
        for each in (first, second):
            timings.append(each.trial.run(self._windows(each))[1])
            is_undisturbed &= yield
        if is_undisturbed:
            first.timings.append(timings[0])
            second.timings.append(timings[1])
        return is_undisturbed

    def _windows(self, sized: SizedCandidate) -> list[Window]:
        return [fill_window(self.expected.pictures[0], sized.window_px)] * sized.batch


def _is_decided(test: PairedTest, enough: float | None) -> bool:
    return test.outcome is not Outcome.OPEN if enough is None else test.is_beyond(enough)


def _likely_s(sized: SizedCandidate) -> float:
    """Estimate a batch's time by the clock, which the budget counts."""
    return sized.timings[-1].clock_s if sized.timings else sized.batch_s
