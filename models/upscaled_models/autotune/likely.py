"""Taking what is likely fastest, where there is no time to race or the machine is too busy for it.

Guarded: what a broken backend computes is not taken, though the table says so.
"""

from collections.abc import Sequence
from typing import Final

from upscaled_models.autotune.attempts import Attempts
from upscaled_models.autotune.cache import Choice
from upscaled_models.autotune.candidates import Candidate, Tunable
from upscaled_models.autotune.pictures import SIDE_PX, fill_window, load_pictures, make_flats
from upscaled_models.autotune.search import Options, prove, short_enough_px
from upscaled_models.autotune.timing import Meter
from upscaled_models.autotune.trial import Budget, Expected, Refused, Trial, run_reference

SMALL_PX: Final = 64
LARGER_PX: Final = 128
"""Windows that are timed: the difference of the two is what pixels cost, without what a batch costs
by itself."""

LONG_S: Final = 0.25
"""A small window that takes so long is measured well enough by itself."""


def take_likeliest(
    options: Options,
    order: Sequence[str],
    reason: str,
    meter: Meter,
    attempts: Attempts,
) -> tuple[Choice, Tunable]:
    """The first candidate of the table that passes its proof; float32 where none does.

    Args:
        options: its candidates in the table's order.
        order: the table's labels (`upscaled_models.autotune.defaults.likeliest`).
        reason: why nothing is raced, for the log and for people.

    Raises:
        InternalError: float32's own result is not finite.
        EngineOutOfMemory: not even float32's smallest pictures fit.
    """
    budget = Budget(0.0, meter.now_s)
    float32 = Trial(options.reference, options.reference.open(), None, 0.0)
    candidates = [each for each in options.candidates if each.label in order]
    expected: Expected | None = None
    refused: dict[str, str] = {}
    chosen: Trial | None = None
    for candidate in candidates:
        if expected is None or candidate.bar.are_flats_checked > bool(expected.flats):
            expected = _run_reference(float32, candidate, meter, is_slow=options.is_slow)
        try:
            chosen = prove(candidate, expected, meter, attempts)
            break
        except Refused as error:
            refused[candidate.name] = str(error)
    trial = chosen or float32
    ns_per_px = _measure_ns_per_px(trial, meter)
    compared = {trial.candidate.name, *refused}
    return Choice(
        runtime=trial.candidate.runtime,
        dtype=trial.candidate.dtype,
        threads=trial.candidate.threads,
        window_px=short_enough_px(options.sizes, ns_per_px),
        batch=options.sizes.batches[0],
        proof=trial.proof,
        ns_per_px=ns_per_px,
        times_as_fast=None,
        refused=refused,
        tuned_s=budget.spent_s,
        unsettled=f"taken by what is known of such processors: {reason}",
        is_from_table=True,
        untried=[
            each.name
            for each in (*options.candidates, options.reference)
            if each.name not in compared
        ],
    ), trial.engine


SLOW_FLATS: Final = 2
"""Colours that a start proves a slow model by; a race proves it by all of them."""


def _run_reference(
    float32: Trial, candidate: Candidate, meter: Meter, *, is_slow: bool
) -> Expected:
    """As little of float32 as the candidate's bar asks for: of a slow model whose proof is
    recorded, one small picture, to see that the backend computes at all.
    """
    if not candidate.bar.are_flats_checked:
        return run_reference(float32, meter, load_pictures(SMALL_PX)[:1], (), is_probed=False)
    if is_slow:
        pictures, flats = load_pictures(SIDE_PX // 2)[:1], make_flats()[:SLOW_FLATS]
    else:
        pictures, flats = load_pictures(SIDE_PX), make_flats()
    return run_reference(float32, meter, pictures, flats, is_probed=False)


def _measure_ns_per_px(trial: Trial, meter: Meter) -> float:
    """Cost of a pixel, by two small windows."""
    small_s = _cost_s(trial, meter, SMALL_PX)
    if small_s > LONG_S:
        return small_s * 1e9 / SMALL_PX**2
    larger_s = _cost_s(trial, meter, LARGER_PX)
    if larger_s <= small_s:
        return larger_s * 1e9 / LARGER_PX**2
    return (larger_s - small_s) * 1e9 / (LARGER_PX**2 - SMALL_PX**2)


def _cost_s(trial: Trial, meter: Meter, side_px: int) -> float:
    """Of one window, after one that makes its kernels."""
    windows = [fill_window(load_pictures(SMALL_PX)[0], side_px)]
    trial.run(meter, windows)
    return trial.run(meter, windows)[1].cost_s
