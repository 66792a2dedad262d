"""Shipped defaults: the likeliest candidates by instruction set, used where measuring has to wait.

By processor time on two cores of an AMD EPYC (Zen 4), its instructions hidden for the lower rows:
seconds per megapixel and core.

| | upscaled-x4-faithful | the same, AVX2 alone |
|---|---|---|
| openvino int8 | 1.0 | 1.8 |
| openvino bfloat16 | 1.7 | |
| torch bfloat16 | 2.2 | |
| openvino float32 | 3.5 | 3.6 |
| torch float32 | 3.8 | 4.0 |

Without VNNI, 8-bit products are added up in 16 bits and may saturate (upscaled-x4-faithful: 41.0 dB
against float32 instead of 46.4), so 8 bits have to be proven on the machine itself. AMX (by Intel
twice the rate of bfloat16 in 8 bits) and NEON (only torch's float32 is known to work) were not at
hand.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from upscaled_models.autotune import trial as trials
from upscaled_models.autotune.cache import Choice
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.pictures import SIDE_PX, fill_window, load_pictures, make_flats
from upscaled_models.autotune.space import SearchSpace, short_enough_px
from upscaled_models.autotune.timing import Meter
from upscaled_models.backends.base import Tunable
from upscaled_models.families import FAMILIES, Family
from upscaled_models.processor import InstructionSet, find_instruction_set

_FLOAT32: Final = ("openvino float32", "torch float32")
_BFLOAT16: Final = ("openvino bfloat16", "torch bfloat16")

LIKELIEST: Final[Mapping[InstructionSet, Sequence[str]]] = {
    InstructionSet.AMX: ("openvino int8", *_BFLOAT16, *_FLOAT32),
    InstructionSet.AVX512_BF16: ("openvino int8", *_BFLOAT16, *_FLOAT32),
    InstructionSet.VNNI: ("openvino int8", *_FLOAT32),
    InstructionSet.AVX2: _FLOAT32,
    InstructionSet.NEON: ("torch float32",),
    InstructionSet.OTHER: ("torch float32",),
}
"""Labels of candidates; every order ends with float32 by torch, which runs everywhere."""

SMALL_PX: Final = 64
LARGER_PX: Final = 128
"""Windows that are timed: the difference of the two is what pixels cost, without what a batch costs
by itself."""

LONG_S: Final = 0.25
"""A small window that takes this long is measured well enough by itself."""

SLOW_FLATS: Final = 2
"""Flat colours that a start checks a slow model with; a race checks all of them."""


def likeliest(family: Family, instructions: InstructionSet | None = None) -> Sequence[str]:
    """List the labels of candidates that may be used unmeasured, the likeliest first."""
    order = LIKELIEST[find_instruction_set() if instructions is None else instructions]
    inaccurate = FAMILIES[family].inaccurate
    return [label for label in order if label.split()[1] not in inaccurate]


def likeliest_first(candidates: Sequence[Candidate], order: Sequence[str]) -> list[Candidate]:
    """Sort candidates by the table's order, those that it does not name last."""

    def rank(candidate: Candidate) -> int:
        return order.index(candidate.label) if candidate.label in order else len(order)

    return sorted(candidates, key=rank)


def choose_likeliest(
    space: SearchSpace, order: Sequence[str], reason: str, meter: Meter, attempts: trials.Attempts
) -> tuple[Choice, Tunable]:
    """Choose the first candidate of the table that passes its accuracy check, else float32.

    Args:
        space: its candidates in the table's order.
        order: the table's labels (`likeliest`).
        reason: why nothing is raced, for the log and for people.
    """
    budget = trials.TimeBudget(0.0, meter)
    trial, refused = _find_accurate(space, order, meter, attempts)
    ns_per_px = _measure_ns_per_px(trial)
    compared = {trial.candidate.name, *refused}
    return Choice(
        runtime=trial.candidate.backend,
        dtype=trial.candidate.dtype,
        threads=trial.candidate.threads,
        window_px=short_enough_px(space.sizes, ns_per_px),
        batch=space.sizes.batches[0],
        proof=trial.proof,
        ns_per_px=ns_per_px,
        times_as_fast=None,
        refused=refused,
        tuned_s=budget.spent_s,
        unsettled=f"chosen by the table for such processors: {reason}",
        is_from_table=True,
        untried=[
            each.name for each in (*space.candidates, space.reference) if each.name not in compared
        ],
    ), trial.engine


def _find_accurate(
    space: SearchSpace, order: Sequence[str], meter: Meter, attempts: trials.Attempts
) -> tuple[trials.OpenCandidate, dict[str, str]]:
    """Find the first accurate candidate, else float32, and why those before it were refused."""
    float32 = trials.OpenCandidate(space.reference, space.reference.open(), meter)
    expected: trials.Reference | None = None
    refused: dict[str, str] = {}
    for candidate in (each for each in space.candidates if each.label in order):
        if expected is None or candidate.bar.are_flats_checked > bool(expected.flats):
            expected = _run_reference(float32, candidate, is_slow=space.is_slow)
        try:
            return trials.try_candidate(candidate, expected, meter, attempts), refused
        except trials.CandidateRefused as error:
            refused[candidate.name] = str(error)
    return float32, refused


def _run_reference(
    float32: trials.OpenCandidate, candidate: Candidate, *, is_slow: bool
) -> trials.Reference:
    """Compute as little in float32 as the candidate's bar needs.

    Of a slow model with a recorded proof one small picture shows that the backend computes.
    """
    if not candidate.bar.are_flats_checked:
        return trials.run_reference(float32, load_pictures(SMALL_PX)[:1], (), is_probed=False)
    if is_slow:
        pictures, flats = load_pictures(SIDE_PX // 2)[:1], make_flats()[:SLOW_FLATS]
    else:
        pictures, flats = load_pictures(SIDE_PX), make_flats()
    return trials.run_reference(float32, pictures, flats, is_probed=False)


def _measure_ns_per_px(trial: trials.OpenCandidate) -> float:
    """Estimate the cost of a pixel from two small windows."""
    small_s = _cost_s(trial, SMALL_PX)
    if small_s > LONG_S:
        return small_s * 1e9 / SMALL_PX**2
    larger_s = _cost_s(trial, LARGER_PX)
    if larger_s <= small_s:
        return larger_s * 1e9 / LARGER_PX**2
    return (larger_s - small_s) * 1e9 / (LARGER_PX**2 - SMALL_PX**2)


def _cost_s(trial: trials.OpenCandidate, side_px: int) -> float:
    """Measure one window, after a run that makes its kernels."""
    windows = [fill_window(load_pictures(SMALL_PX)[0], side_px)]
    trial.run(windows)
    return trial.run(windows)[1].cost_s
