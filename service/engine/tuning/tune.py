"""The choosing: prove every candidate, time those that pass, then find the winner's window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.engine.engine import least_window_px, round_up
from service.engine.tuning.attempts import Attempts
from service.engine.tuning.candidate import Candidate, Tunable
from service.engine.tuning.choice_file import Choice
from service.engine.tuning.pictures import SIDE_PX
from service.engine.tuning.race import MAX_BATCH_S, Contender, race
from service.engine.tuning.trial import (
    Budget,
    Expected,
    Refused,
    Trial,
    run_reference,
    try_candidate,
)

SLOW_NS_PER_PX: Final = 40_000
"""In float32. Slower models (RRDB on a CPU) are proven on a quarter of the pictures."""

SLOW_BUDGET_PER_NS_S: Final = 1e-4
"""More time for slow models: 24 s at 240 us for a pixel, up to `MAX_BUDGET_S`."""

MAX_BUDGET_S: Final = 60.0
ALWAYS_TRIED: Final = 2
"""So many candidates are tried even where float32 alone took all the time, on a busy machine: the
choice is kept for good, and the likeliest come first."""

MAX_DEATHS: Final = 2
"""A processor may lack what a runtime takes for granted, and the kernel then ends the process. One
death may have been someone else's doing."""

CLOSE_RATIO: Final = 1.5
"""In pictures; what is slower there by more is not tried in windows."""

WINDOW_RATIOS: Final = (1.0, 2 / 3, 1 / 2, 4 / 3)


@dataclass(frozen=True, slots=True)
class Effort:
    """budget_s: how long one model's tuning may take. turn_s: how long an image should wait at most
    for the batch of a large one that has just begun; sizes that keep to it win over faster ones
    that do not, and a model too slow for any of them is not held to it.
    """

    budget_s: float
    turn_s: float


EFFORT: Final = Effort(budget_s=2.7, turn_s=2.0)
"""On two quiet cores; a default installation opens two models. Small images are taken aside there
and wait for no turn (`service.upscale.turns`). At 0.25 s two fast cores took windows of 256 px for
general-x4v3, which keep 54 % of what they compute; those of 512 px keep 75 %, and take 1.5 s."""

CUDA_EFFORT: Final = Effort(budget_s=30.0, turn_s=0.08)
"""Compiling our kernel in both types takes about 15 s; and large networks fill a GPU's turn."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What may be tried. windows_px: sides, the likeliest first. batches: windows at a time."""

    windows_px: tuple[int, ...]
    batches: tuple[int, ...]


def sizes_around(
    window_px: int, halo_px: int, step_px: int, *, is_fixed: bool, batches: tuple[int, ...]
) -> Sizes:
    """Windows to try around the usual one; that one alone if it `is_fixed`."""
    if is_fixed:
        return Sizes((window_px,), batches)
    least_px = round_up(least_window_px(halo_px, step_px) + halo_px, step_px)
    sides = [round_up(round(window_px * ratio), step_px) for ratio in WINDOW_RATIOS]
    return Sizes(tuple(dict.fromkeys(side for side in sides if side >= least_px)), batches)


def tune(
    reference: Candidate,
    candidates: Sequence[Candidate],
    sizes: Sizes,
    precision: str,
    attempts: Attempts | None = None,
    effort: Effort = EFFORT,
) -> tuple[Choice, Tunable]:
    """Choose among float32 and the candidates that are proven to give its picture.

    Args:
        reference: computes in float32; chosen where nothing else is faster.
        candidates: others, the likeliest first; as many are tried as the time allows.
        sizes: not empty.
        precision: "auto" or "fast".
        attempts: remembers which candidate is being tried, should it end this process.
        effort: see `Effort`.

    Raises:
        InternalError: float32's own result is not finite.
        EngineOutOfMemory: not even float32's smallest pictures fit.
    """
    budget = Budget(effort.budget_s)
    engine = reference.open()
    expected = _run_reference(engine, budget)
    trials, refused = _prove(candidates, expected, precision, budget, attempts or Attempts(None))
    float32 = Trial(reference, engine, None, expected.ns_per_px)
    find = _Search(expected, sizes, budget, effort.turn_s)
    best = find.fastest([*trials, float32], refused)
    choice = Choice(
        runtime=best.trial.candidate.runtime,
        dtype=best.trial.candidate.dtype,
        threads=best.trial.candidate.threads,
        window_px=best.window_px,
        batch=best.batch,
        proof=best.trial.proof,
        ns_per_px=best.ns_per_px,
        times_as_fast=expected.ns_per_px / best.trial.ns_per_px,
        refused=refused,
        tuned_s=budget.spent_s,
    )
    return choice, best.trial.engine


def _run_reference(engine: Tunable, budget: Budget) -> Expected:
    """On whole pictures, or on their middles where those already took long."""
    small = run_reference(engine, SIDE_PX // 2)
    budget.widen(min(MAX_BUDGET_S, small.ns_per_px * SLOW_BUDGET_PER_NS_S))
    return small if small.ns_per_px > SLOW_NS_PER_PX else run_reference(engine, SIDE_PX)


def _prove(
    candidates: Sequence[Candidate],
    expected: Expected,
    precision: str,
    budget: Budget,
    attempts: Attempts,
) -> tuple[list[Trial], dict[str, str]]:
    trials: list[Trial] = []
    refused: dict[str, str] = {}
    for candidate in candidates:
        if len(trials) + len(refused) >= ALWAYS_TRIED and not budget.allows(0):
            refused[candidate.label] = "not tried: no time was left"
            continue
        if attempts.deaths(candidate.label) >= MAX_DEATHS:
            refused[candidate.label] = f"ended the process {MAX_DEATHS} times"
            continue
        try:
            with attempts.trying(candidate.label):
                trials.append(try_candidate(candidate, expected, precision))
        except Refused as error:
            refused[candidate.label] = str(error)
    return trials, refused


@dataclass(frozen=True, slots=True)
class _Search:
    expected: Expected
    sizes: Sizes
    budget: Budget
    turn_s: float

    def fastest(self, trials: Sequence[Trial], refused: dict[str, str]) -> Contender:
        """Of all that are close to the fastest in the likeliest window; then that one in others."""
        window_px, batch = self.sizes.windows_px[0], self.sizes.batches[0]
        least_ns = min(trial.ns_per_px for trial in trials)
        close = [trial for trial in trials if trial.ns_per_px <= CLOSE_RATIO * least_ns]
        contenders = [Contender(trial, window_px, batch) for trial in close]
        best = self._race(contenders)
        faulty = [each.trial for each in contenders if each.fault]
        refused |= {each.trial.candidate.label: each.fault for each in contenders if each.fault}
        if faulty:
            return self.fastest([trial for trial in trials if trial not in faulty], refused)
        if best is None:  # no time, or no room for one window: smaller are found while serving
            trial = min(close, key=_speed)
            return Contender(trial, self._short_enough(trial, batch), batch, least_ns)
        windows = [Contender(best.trial, each, batch) for each in self.sizes.windows_px[1:]]
        best = self._race([best, *windows]) or best
        batches = [Contender(best.trial, best.window_px, each) for each in self.sizes.batches[1:]]
        return self._race([best, *batches]) or best if batches else best

    def _short_enough(self, trial: Trial, batch: int) -> int:
        """The likeliest window that a cancelled image would not go on in for too long."""
        likely_s = {px: Contender(trial, px, batch).likely_s for px in self.sizes.windows_px}
        short = [px for px, seconds in likely_s.items() if seconds <= MAX_BATCH_S]
        return short[0] if short else self.sizes.windows_px[0]

    def _race(self, contenders: Sequence[Contender]) -> Contender | None:
        return race(contenders, self.expected, self.budget, self.turn_s)


def _speed(trial: Trial) -> float:
    return trial.ns_per_px
