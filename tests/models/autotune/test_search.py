"""Candidates that are wrong or slow on purpose are never chosen, however fast they are."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from tests.models.autotune.fakes import (
    NOTHING_TRIED,
    Distort,
    FakeEngine,
    FakeMeter,
    Levels,
    candidate,
)
from upscaled_models.accuracy import FLOAT_BARS, INT8_BARS, RECORDED_BAR, Bar
from upscaled_models.autotune.cache import Choice
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.race import drive
from upscaled_models.autotune.search import Search
from upscaled_models.autotune.space import MAX_BATCH_S, Effort, SearchSpace, Sizes, sizes_around
from upscaled_models.backends.base import Tunable

SLOW = 2e-6  # seconds for a pixel: float32, in which everything is right
FAST = 2e-7
SIZES = Sizes((128,), (1,))
WITHOUT_HURRY = Effort(budget_s=inf, max_wait_s=2.0)


def float32(seconds_per_px: float = SLOW) -> Candidate:
    return candidate(FakeEngine(seconds_per_px=seconds_per_px), "float32")


def choose(
    *candidates: Candidate,
    reference: Candidate | None = None,
    sizes: Sizes = SIZES,
    effort: Effort = WITHOUT_HURRY,
    meter: FakeMeter | None = None,
) -> Choice:
    options = SearchSpace(reference or float32(), candidates, sizes)
    return drive(Search(options, meter or FakeMeter(), effort, NOTHING_TRIED).run())[0]


def with_error(rms: float) -> Distort:
    """Noise around zero, but none in flat colours: as 8 bits at their best."""

    def distort(levels: Levels) -> Levels:
        is_flat = (levels == levels[:, :1, :1]).all()
        noise = np.random.default_rng(0).normal(0, rms, levels.shape)
        return levels if is_flat else levels + noise

    return distort


def darker_where_not_flat(levels: Levels) -> Levels:
    return levels if (levels == levels[:, :1, :1]).all() else levels - 0.9


def stain(levels: Levels) -> Levels:
    """One pixel of flat grey, off by one level."""
    spot = np.zeros_like(levels)
    spot[:, 5, 5] = (levels == 128).all()
    return levels + spot


WRONG: dict[str, Distort] = {
    "not finite": lambda levels: levels + np.nan,
    "black": lambda levels: levels * 0,
    "its mean colour": darker_where_not_flat,
    "dB of the": with_error(1.5),
    "flat colours": stain,
    "fails": lambda levels: levels[:, :-1],
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_candidate_is_never_chosen_however_fast(reason: str) -> None:
    choice = choose(candidate(FakeEngine(WRONG[reason], FAST)))

    assert choice.dtype == "float32"
    assert choice.proof is None
    assert reason in choice.refused["fake int8 on 1 threads"]
    assert choice.is_settled


def test_a_candidate_that_cannot_even_be_opened_is_refused() -> None:
    def refuse() -> Tunable:
        raise RuntimeError("no such instruction\non this processor")

    choice = choose(replace(candidate(), open=refuse))

    assert choice.dtype == "float32"
    assert choice.refused == {"fake int8 on 1 threads": "fails: no such instruction"}


def test_the_fastest_accurate_candidate_is_chosen() -> None:
    right, faster = FakeEngine(seconds_per_px=FAST * 2), FakeEngine(seconds_per_px=FAST)

    assert choose(candidate(right, "bfloat16"), candidate(faster, "float16")).dtype == "float16"
    assert choose(candidate(FakeEngine(seconds_per_px=3 * SLOW))).dtype == "float32"


def test_the_more_accurate_of_two_equally_fast_candidates_is_chosen() -> None:
    near, far = with_error(0.3), with_error(0.7)
    first = candidate(FakeEngine(far, FAST), "int8")
    second = candidate(FakeEngine(near, FAST * 1.02), "bfloat16")

    assert choose(first, second).dtype == "bfloat16"
    assert choose(second, first).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("bar", "rms", "is_chosen"),
    [
        (FLOAT_BARS["auto"], 0.6, True),
        (FLOAT_BARS["auto"], 1.0, False),
        (INT8_BARS["auto"], 1.2, True),
        (INT8_BARS["auto"], 1.7, False),
        (INT8_BARS["fast"], 2.5, True),
        (INT8_BARS["fast"], 3.5, False),
        (RECORDED_BAR, 13.0, True),
        (RECORDED_BAR, 15.0, False),
    ],
)
def test_each_kind_of_candidate_has_its_own_accuracy_limit(
    bar: Bar, rms: float, is_chosen: bool
) -> None:
    """50 dB are an error of 0.8 levels, 45 dB of 1.4, 39 dB of 2.9, 25 dB of 14.3."""
    choice = choose(candidate(FakeEngine(with_error(rms), FAST), bar=bar))

    assert (choice.dtype == "int8") == is_chosen


def test_flat_colours_are_checked_unless_a_proof_is_recorded() -> None:
    stained = FakeEngine(stain, FAST)

    assert choose(candidate(stained, bar=INT8_BARS["fast"])).dtype == "float32"
    assert choose(candidate(stained, bar=RECORDED_BAR)).dtype == "int8"


def test_a_candidate_89_times_as_slow_as_float32_is_refused_after_a_small_window() -> None:
    """89 times as slow as float32; the pictures would take 1.6 s."""
    hopeless = FakeEngine(seconds_per_px=89e-6)
    meter = FakeMeter()

    choice = choose(candidate(hopeless), reference=float32(1e-6), meter=meter)

    assert choice.dtype == "float32"
    assert "times as long as float32" in choice.refused["fake int8 on 1 threads"]
    assert max(shape[1] for shape in hopeless.shapes) <= 32
    assert meter.passed_s < 1


def test_a_candidate_whose_larger_windows_are_wrong_is_refused() -> None:
    def wrong_when_large(levels: Levels) -> Levels:
        return levels + 3 if levels.shape[1] > 2 * 96 else levels

    choice = choose(candidate(FakeEngine(wrong_when_large, FAST)))

    assert choice.dtype == "float32"
    assert "larger window" in choice.refused["fake int8 on 1 threads"]


def test_the_window_that_wastes_least_on_its_halo_is_chosen() -> None:
    engine = replace(FakeEngine(seconds_per_px=SLOW), halo_px=20)

    choice = choose(reference=candidate(engine, "float32"), sizes=Sizes((64, 48, 96), (1,)))

    assert choice.window_px == 96
    assert choice.ns_per_px == pytest.approx(SLOW * 1e9)


@pytest.mark.parametrize(
    ("us_per_px", "halo_px", "window_px"), [(6, 8, 64), (25, 8, 128), (6, 20, 128)]
)
def test_a_window_that_occupies_the_device_briefly_is_preferred_unless_it_wastes_far_more(
    us_per_px: int, halo_px: int, window_px: int
) -> None:
    """64 px take 25 ms or 102 ms; 128 px 4 times that, and keep 1.4 or 3.4 times the share."""
    engine = FakeEngine(seconds_per_px=us_per_px * 1e-6, halo_px=halo_px)

    choice = choose(
        reference=candidate(engine, "float32"),
        sizes=Sizes((128, 64), (1,)),
        effort=Effort(budget_s=inf, max_wait_s=0.09),
    )

    assert choice.window_px == window_px


def test_a_size_that_does_not_fit_is_not_chosen() -> None:
    engine = FakeEngine(seconds_per_px=SLOW, room_px=100 * 100, halo_px=20)

    choice = choose(reference=candidate(engine, "float32"), sizes=Sizes((64, 96, 128), (1, 2)))

    assert (choice.window_px, choice.batch) == (96, 1)


def test_the_usual_window_is_chosen_where_no_window_fits() -> None:
    engine = FakeEngine(seconds_per_px=SLOW, room_px=100 * 100)

    assert choose(reference=candidate(engine, "float32")).window_px == 128


def test_sizes_are_multiples_of_the_step_and_hold_a_core() -> None:
    sizes = sizes_around(384, 19, 16, is_fixed=False, batches=(1,))

    assert sizes.windows_px == (384, 256, 192, 512)
    assert sizes_around(96, 32, 16, is_fixed=False, batches=(1,)).windows_px == (128,)
    assert sizes_around(100, 19, 16, is_fixed=True, batches=(1, 4)) == Sizes((100,), (1, 4))


def test_untried_candidates_are_named_and_the_choice_is_not_settled() -> None:
    others = [candidate(FakeEngine(seconds_per_px=FAST / 2), dtype) for dtype in ("b", "c")]

    choice = choose(
        candidate(FakeEngine(seconds_per_px=FAST), "a"), *others, effort=Effort(0.0, max_wait_s=1.0)
    )

    assert choice.dtype == "a"
    assert choice.untried == [f"fake {name} on 1 threads" for name in ("b", "c", "float32")]
    assert not choice.is_settled
    assert "no time was left for fake b" in choice.unsettled
    assert choice.refused == {}


@pytest.mark.parametrize(("ratio", "dtype"), [(1.4, "a"), (1.6, "float32")])
def test_a_candidate_much_slower_than_float32_is_not_chosen_when_time_is_short(
    ratio: float, dtype: str
) -> None:
    slower = candidate(FakeEngine(seconds_per_px=ratio * SLOW), "a")
    assert choose(slower, effort=Effort(0.0, max_wait_s=1.0)).dtype == dtype


def test_a_window_that_lasts_too_long_is_not_chosen_without_a_race() -> None:
    lasting = int((1.1 * MAX_BATCH_S / SLOW) ** 0.5)

    choice = choose(sizes=Sizes((lasting, lasting // 2), (1,)), effort=Effort(0.0, max_wait_s=1.0))

    assert choice.window_px == lasting // 2


def test_a_race_can_wait_between_any_two_runs_and_leaves_out_what_was_disturbed() -> None:
    """Every fifth run has a request beside it, which makes it ten times as long."""
    meter = FakeMeter()
    busy = False
    meter.disturb = lambda cost_s: (cost_s * 10, cost_s * 10) if busy else (cost_s, cost_s)
    options = SearchSpace(float32(), [candidate(FakeEngine(seconds_per_px=FAST))], SIZES)
    steps = Search(options, meter, WITHOUT_HURRY, NOTHING_TRIED).run()
    next(steps)
    pauses = 0
    try:
        while True:
            pauses += 1
            was_busy, busy = busy, pauses % 5 == 0
            steps.send(not was_busy)
    except StopIteration as end:
        choice, _ = end.value

    assert pauses > 10
    assert choice.dtype == "int8"
    (row,) = [each for each in choice.measured if each.name == "fake float32 on 1 threads"]
    assert row.ratio == pytest.approx(SLOW / FAST)
