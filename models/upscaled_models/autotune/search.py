"""The search for the fastest: check every candidate's accuracy, race them, then race sizes."""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from upscaled_models.autotune.cache import Choice, Measured
from upscaled_models.autotune.paired import Outcome, PairedTest
from upscaled_models.autotune.pictures import SIDE_PX, load_pictures, make_flats
from upscaled_models.autotune.race import Race, SizedCandidate, Steps
from upscaled_models.autotune.space import Effort, SearchSpace, short_enough_px
from upscaled_models.autotune.timing import Meter
from upscaled_models.autotune.trial import (
    Attempts,
    CandidateRefused,
    OpenCandidate,
    Reference,
    TimeBudget,
    run_reference,
    try_candidate,
)
from upscaled_models.backends.base import Tunable

CLOSE_RATIO: Final = 1.5
"""A candidate that is slower in pictures by more than this factor is not raced in windows."""

PICTURE_PAIRS: Final = 5
"""Most pairs of runs in pictures: few show whether two candidates are that far apart."""

WORTH_A_LONG_BATCH: Final = 1.5
"""Factor by which long batches must be faster to win over short ones. RRDB's halo leaves windows of
128 px a quarter of what they compute, those of 256 px more than twice as much: short batches are no
gain where most of their work is discarded."""

WORTH_RATIO: Final = 0.97
"""Cost, as a share, that larger windows and batches must stay below: smaller ones end sooner, and
other images wait less."""

SLOW_RACE_PX: Final = 128
"""Largest window in which slow models are raced: 2 s for x4plus in float32 on two cores, which a
request may have to wait."""


@dataclass(slots=True)
class Search:
    """One search, and the candidates that it refused, compared or did not try."""

    space: SearchSpace
    meter: Meter
    effort: Effort
    attempts: Attempts
    refused: dict[str, str] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    open_orders: list[str] = field(default_factory=list)

    def run(self) -> Steps[tuple[Choice, Tunable]]:
        """Choose the fastest of float32 and the candidates that compute float32's picture.

        Raises:
            ResultNotFinite: float32's own result is not finite.
            EngineOutOfMemory: not even float32's smallest pictures fit.
        """
        budget = TimeBudget(self.effort.budget_s, self.meter)
        reference = OpenCandidate(self.space.reference, self.space.reference.open(), self.meter)
        side_px = SIDE_PX // 2 if self.space.is_slow else SIDE_PX
        expected = run_reference(reference, load_pictures(side_px), make_flats())
        yield
        race = Race(expected, budget)
        float32 = replace(reference, ns_per_px=expected.ns_per_px)
        best = yield from self._find_best(race, float32)
        chosen = yield from self._find_size(race, best)
        return self._conclude(chosen, expected, budget), chosen.trial.engine

    def _find_best(self, race: Race, float32: OpenCandidate) -> Steps[SizedCandidate]:
        """Find the fastest of all; the likeliest, where the budget ends before that is known."""
        best: SizedCandidate | None = None
        for candidate in (*self.space.candidates, float32.candidate):
            if best is not None and not race.budget.allows(0):
                self.untried.append(candidate.name)
                continue
            try:
                trial = float32
                if candidate is not float32.candidate:
                    trial = try_candidate(candidate, race.expected, self.meter, self.attempts)
                yield
                other = self._give_size(trial)
                if best is None:
                    self._enter(race, other)
                    best = other
                else:
                    best = yield from self._compare(race, best, other)
            except CandidateRefused as error:
                self.refused[candidate.name] = str(error)
        if best is None or self._is_beaten_in_pictures(best, float32):
            return self._give_size(float32)
        return best

    def _is_beaten_in_pictures(self, best: SizedCandidate, float32: OpenCandidate) -> bool:
        """Return whether float32, which the budget left no race, took much less for a picture."""
        is_untried = float32.candidate.name in self.untried
        return is_untried and best.trial.ns_per_px > CLOSE_RATIO * float32.ns_per_px

    def _give_size(self, trial: OpenCandidate) -> SizedCandidate:
        window_px = short_enough_px(self.space.sizes, trial.ns_per_px)
        if self.space.is_slow:
            window_px = min(window_px, SLOW_RACE_PX)
        return SizedCandidate(trial, window_px, self.space.sizes.batches[0])

    def _enter(self, race: Race, sized: SizedCandidate) -> bool:
        """Return whether a candidate fits the device; assumed where the budget is spent."""
        return not race.budget.allows(sized.batch_s) or race.enter(sized)

    def _compare(
        self, race: Race, best: SizedCandidate, other: SizedCandidate
    ) -> Steps[SizedCandidate]:
        """Race two in pictures; then in windows, if they are close there or the other won."""
        pair = _in_picture(best, race.expected), _in_picture(other, race.expected)
        test = yield from race.run(*pair, most_pairs=PICTURE_PAIRS, enough=CLOSE_RATIO)
        if test.is_beyond(CLOSE_RATIO) and test.outcome is Outcome.SLOWER:
            self._note(*pair, test)
            return best
        if not self._enter(race, other):
            self.refused[other.trial.candidate.name] = "no room for a window"
            return best
        if not test.is_beyond(CLOSE_RATIO):
            test = yield from race.run(best, other)
            pair = best, other
        self._note(*pair, test)
        return _winner(test, best, other)

    def _find_size(self, race: Race, best: SizedCandidate) -> Steps[SizedCandidate]:
        """Find the winner's window, then its batch; a slow model keeps the usual sizes."""
        sizes = self.space.sizes
        yield from race.time(best)
        if self.space.is_slow:
            return best
        for window_px in sizes.windows_px:
            if window_px != best.window_px:
                other = SizedCandidate(best.trial, window_px, best.batch)
                best = yield from self._compare_sizes(race, best, other)
        for batch in sizes.batches[1:]:
            other = SizedCandidate(best.trial, best.window_px, batch)
            best = yield from self._compare_sizes(race, best, other)
        return best

    def _compare_sizes(
        self, race: Race, best: SizedCandidate, other: SizedCandidate
    ) -> Steps[SizedCandidate]:
        name = f"windows of {other.window_px} px, {other.batch} at a time"
        if not race.budget.allows(other.batch_s):
            self.untried.append(name)
            return best
        try:
            if not race.enter(other):
                return best
        except CandidateRefused:
            return best
        yield
        test = yield from race.run(best, other, self._max_ratio(best, other))
        if test.outcome is Outcome.OPEN:
            self.open_orders.append(name)
        return other if test.outcome is Outcome.FASTER else best

    def _max_ratio(self, best: SizedCandidate, other: SizedCandidate) -> float:
        """Return what the other's cost may be at most, as a share of the best's."""
        batches_s = best.batch_s, other.batch_s
        if min(batches_s) <= self.effort.max_wait_s < max(batches_s):
            return WORTH_A_LONG_BATCH if batches_s[1] < batches_s[0] else 1 / WORTH_A_LONG_BATCH
        return WORTH_RATIO if other.px > best.px else 1.0

    def _note(self, against: SizedCandidate, other: SizedCandidate, test: PairedTest) -> None:
        """Add a comparison to the choice's table."""
        estimate = test.estimate
        is_settled = test.outcome is not Outcome.OPEN
        is_bounded = estimate.high < inf
        name = other.trial.candidate.name
        row = Measured(
            name=name,
            ns_per_px=other.ns_per_px,
            against=against.trial.candidate.name,
            ratio=estimate.ratio if estimate.pairs else None,
            low=estimate.low if is_bounded else None,
            high=estimate.high if is_bounded else None,
            pairs=estimate.pairs,
            is_settled=is_settled,
        )
        self.measured.append(row)
        if not is_settled:
            self.open_orders.append(name)

    def _conclude(self, best: SizedCandidate, expected: Reference, budget: TimeBudget) -> Choice:
        trial = best.trial
        window_px = best.window_px
        if self.space.is_slow:
            window_px = short_enough_px(self.space.sizes, best.ns_per_px)
        return Choice(
            runtime=trial.candidate.backend,
            dtype=trial.candidate.dtype,
            threads=trial.candidate.threads,
            window_px=window_px,
            batch=best.batch,
            proof=trial.proof,
            ns_per_px=best.ns_per_px,
            times_as_fast=expected.ns_per_px / trial.ns_per_px,
            refused=self.refused,
            tuned_s=budget.spent_s,
            unsettled="; ".join(
                f"{reason} {', '.join(names)}"
                for reason, names in (
                    ("no time was left for", self.untried),
                    ("too close or too variable:", self.open_orders),
                )
                if names
            ),
            untried=self.untried,
            measured=self._rows(best),
        )

    def _rows(self, best: SizedCandidate) -> list[Measured]:
        name = best.trial.candidate.name
        rows = [each for each in self.measured if each.name != name]
        own = [each for each in self.measured if each.name == name]
        chosen = own[-1] if own else Measured(name=name, ns_per_px=best.ns_per_px)
        return [chosen.model_copy(update={"ns_per_px": best.ns_per_px}), *rows]


def _winner(test: PairedTest, best: SizedCandidate, other: SizedCandidate) -> SizedCandidate:
    """Follow the outcome; of two that are as fast, choose the one nearer to float32's picture."""
    match test.outcome:
        case Outcome.FASTER:
            return other
        case Outcome.SLOWER:
            return best
        case Outcome.AS_FAST:
            return max(best, other, key=_nearness)
        case Outcome.OPEN:
            return other if test.is_exhausted and test.estimate.ratio < 1 else best


def _in_picture(sized: SizedCandidate, expected: Reference) -> SizedCandidate:
    return SizedCandidate(sized.trial, expected.pictures[0].shape[0], 1)


def _nearness(sized: SizedCandidate) -> float:
    """Rank by decibels to float32; of equals, `max` keeps the first."""
    return inf if sized.trial.proof is None else sized.trial.proof.psnr_db
