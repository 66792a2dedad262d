"""Candidates that are wrong or slow on purpose are never chosen, whatever they promise."""

import time
from dataclasses import replace

import numpy as np
import pytest

from service.engine.tuning.candidate import Candidate, Tunable
from service.engine.tuning.race import MAX_BATCH_S
from service.engine.tuning.tune import Effort, Sizes, sizes_around, tune
from tests.service.engine.tuning.fakes import FakeEngine, Levels, Spoil, candidate

SLOW = 2e-6  # seconds for a pixel: float32, in which everything is right
FAST = 2e-7
SIZES = Sizes((64,), (1,))


def float32(seconds_per_px: float = SLOW) -> Candidate:
    return candidate(FakeEngine(seconds_per_px=seconds_per_px), "float32")


def chosen(*candidates: Candidate, precision: str = "auto", sizes: Sizes = SIZES) -> str:
    return tune(float32(), candidates, sizes, precision)[0].dtype


def with_error(rms: float) -> Spoil:
    """Noise around zero, but none in flat colours: as 8 bits at their best."""

    def spoil(levels: Levels) -> Levels:
        is_flat = (levels == levels[:, :1, :1]).all()
        noise = np.random.default_rng(0).normal(0, rms, levels.shape)
        return levels if is_flat else levels + noise

    return spoil


def darker_where_not_flat(levels: Levels) -> Levels:
    return levels if (levels == levels[:, :1, :1]).all() else levels - 0.9


def stain(levels: Levels) -> Levels:
    """One pixel of flat grey, off by one level."""
    spot = np.zeros_like(levels)
    spot[:, 5, 5] = (levels == 128).all()
    return spot


WRONG: dict[str, Spoil] = {
    "not finite": lambda levels: levels + np.nan,
    "black": lambda levels: levels * 0,
    "its mean colour": darker_where_not_flat,
    "dB of the": with_error(1.5),
    "flat colours": lambda levels: levels + stain(levels),
    "fails": lambda levels: levels[:, :-1],
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_candidate_is_never_chosen_however_fast(reason: str) -> None:
    wrong = candidate(FakeEngine(WRONG[reason], FAST))

    choice, _ = tune(float32(), [wrong], SIZES, "auto")

    assert choice.dtype == "float32"
    assert choice.proof is None
    assert reason in choice.refused["fake int8"]


def test_a_candidate_that_cannot_even_be_opened_is_refused() -> None:
    def refuse() -> Tunable:
        raise RuntimeError("no such instruction\non this processor")

    broken = Candidate("fake", "int8", threads=1, version="1", open=refuse)

    choice, _ = tune(float32(), [broken], SIZES, "auto")

    assert choice.dtype == "float32"
    assert choice.refused == {"fake int8": "fails: no such instruction"}


def test_the_fastest_of_the_right_ones_is_chosen() -> None:
    right, faster = FakeEngine(seconds_per_px=FAST * 2), FakeEngine(seconds_per_px=FAST)

    assert chosen(candidate(right, "bfloat16"), candidate(faster, "float16")) == "float16"
    assert chosen(candidate(FakeEngine(seconds_per_px=3 * SLOW))) == "float32"


def test_fast_forgives_what_auto_does_not_but_no_flat_colour() -> None:
    noisy = candidate(FakeEngine(with_error(1.5), FAST))
    stained = candidate(FakeEngine(WRONG["flat colours"], FAST))

    assert chosen(noisy, precision="auto") == "float32"
    assert chosen(noisy, precision="fast") == "int8"
    assert chosen(candidate(FakeEngine(with_error(4), FAST)), precision="fast") == "float32"
    assert chosen(stained, precision="fast") == "float32"


def test_a_hopelessly_slow_candidate_is_left_after_a_few_pixels() -> None:
    """89 times as slow as float32; the pictures alone would take 1.6 s."""
    hopeless = FakeEngine(seconds_per_px=89e-6)

    started = time.perf_counter()
    choice, _ = tune(float32(seconds_per_px=1e-6), [candidate(hopeless)], SIZES, "auto")

    assert choice.dtype == "float32"
    assert "times as long as float32" in choice.refused["fake int8"]
    assert max(shape[1] for shape in hopeless.asked) <= 32
    assert time.perf_counter() - started < 2


def test_a_candidate_whose_larger_windows_are_wrong_is_refused() -> None:
    def wrong_when_large(levels: Levels) -> Levels:
        return levels + 3 if levels.shape[1] > 2 * 96 else levels

    choice, _ = tune(
        float32(),
        [candidate(FakeEngine(wrong_when_large, FAST))],
        Sizes((128,), (1,)),
        "auto",
    )

    assert choice.dtype == "float32"
    assert "larger window" in choice.refused["fake int8"]


def test_the_window_that_wastes_least_on_its_halo_is_chosen() -> None:
    engine = replace(FakeEngine(seconds_per_px=SLOW), halo_px=20)
    sizes = Sizes((64, 48, 96), (1,))

    choice, _ = tune(candidate(engine, "float32"), [], sizes, "auto")

    assert choice.window_px == 96


@pytest.mark.parametrize(
    ("us_per_px", "halo_px", "window_px"), [(6, 8, 64), (25, 8, 128), (6, 20, 128)]
)
def test_a_window_that_lets_others_in_soon_goes_first_unless_it_wastes_far_more(
    us_per_px: int, halo_px: int, window_px: int
) -> None:
    """64 px take 25 ms or 102 ms; 128 px 4 times that, and keep 1.4 or 3.4 times the share.

    A busy machine only makes both longer: the limit lies just below the next longer time.
    """
    engine = FakeEngine(seconds_per_px=us_per_px * 1e-6, halo_px=halo_px)

    effort = Effort(budget_s=2.7, turn_s=0.09)
    sizes = Sizes((128, 64), (1,))
    choice, _ = tune(candidate(engine, "float32"), [], sizes, "auto", effort=effort)

    assert choice.window_px == window_px


def test_what_does_not_fit_is_not_chosen() -> None:
    engine = FakeEngine(seconds_per_px=SLOW, room_px=100 * 100, halo_px=20)

    choice, _ = tune(candidate(engine, "float32"), [], Sizes((64, 96, 128), (1, 2)), "auto")

    assert (choice.window_px, choice.batch) == (96, 1)


def test_where_not_even_the_usual_window_fits_it_stays_for_the_loop_to_halve() -> None:
    engine = FakeEngine(seconds_per_px=SLOW, room_px=100 * 100)

    choice, _ = tune(candidate(engine, "float32"), [], Sizes((128,), (1,)), "auto")

    assert choice.window_px == 128


def test_sizes_are_multiples_of_the_step_with_room_for_a_core() -> None:
    sizes = sizes_around(384, 19, 16, is_fixed=False, batches=(1,))

    assert sizes.windows_px == (384, 256, 192, 512)
    assert sizes_around(96, 32, 16, is_fixed=False, batches=(1,)).windows_px == (128,)
    assert sizes_around(100, 19, 16, is_fixed=True, batches=(1, 4)) == Sizes((100,), (1, 4))


def test_on_a_busy_machine_the_likeliest_two_are_tried_all_the_same() -> None:
    candidates = [candidate(FakeEngine(seconds_per_px=FAST), dtype) for dtype in ("a", "b", "c")]

    choice, _ = tune(
        candidate(FakeEngine(seconds_per_px=SLOW), "float32"),
        candidates,
        Sizes((64,), (1,)),
        "auto",
        effort=Effort(budget_s=0.0, turn_s=1.0),
    )

    assert choice.dtype in ("a", "b")
    assert choice.refused == {"fake c": "not tried: no time was left"}


def test_without_time_to_race_no_window_is_taken_that_would_go_on_for_too_long() -> None:
    engine = FakeEngine(seconds_per_px=SLOW)
    lasting = int((1.1 * MAX_BATCH_S / SLOW) ** 0.5)

    choice, _ = tune(
        candidate(engine, "float32"),
        [],
        Sizes((lasting, lasting // 2), (1,)),
        "auto",
        effort=Effort(budget_s=0.0, turn_s=1.0),
    )

    assert choice.window_px == lasting // 2
