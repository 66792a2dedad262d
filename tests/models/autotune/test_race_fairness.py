"""Choosing is fair and can be repeated on machines that have other work."""

from random import Random

import pytest

from tests.models.autotune.fakes import Disturb, FakeEngine, FakeMeter, candidate
from upscaled_models.autotune.paired import MAX_PAIRS, MIN_PAIRS, Outcome, PairedTest
from upscaled_models.autotune.pictures import load_pictures
from upscaled_models.autotune.race import Race, SizedCandidate, drive
from upscaled_models.autotune.timing import Timing, cost_ratio
from upscaled_models.autotune.trial import OpenCandidate, Reference, TimeBudget

COST_S = 0.1


def stolen_half(random: Random) -> Disturb:
    """Another process has half of the cores, in bursts: the clock shows 1 to 3 times the cost; the
    caches it empties make the processor's own time scatter by 2 %.
    """

    def disturb(cost_s: float) -> tuple[float, float]:
        processor_s = cost_s * random.gauss(1, 0.02)
        return processor_s * random.uniform(1.05, 3), processor_s

    return disturb


def outcome(ratio: float, disturb: Disturb) -> Outcome:
    """Return how a candidate compares that costs `ratio` times what the best does."""
    meter = FakeMeter(disturb)
    best, other = sized(meter, 1e-5), sized(meter, 1e-5 * ratio)
    race = Race(_expected(), TimeBudget(float("inf"), meter))
    return drive(race.run(best, other)).outcome


def sized(meter: FakeMeter, seconds_per_px: float) -> SizedCandidate:
    engine = FakeEngine(seconds_per_px=seconds_per_px)
    return SizedCandidate(OpenCandidate(candidate(engine), engine, meter, ns_per_px=1.0), 64, 1)


def _expected() -> Reference:
    return Reference(load_pictures(64), (), (), (), (), 1.0)


def test_a_candidate_faster_by_a_tenth_wins_though_other_processes_use_half_the_time() -> None:
    random = Random(1)
    faster = [outcome(1 / 1.1, stolen_half(random)) for _ in range(50)]
    slower = [outcome(1.1, stolen_half(random)) for _ in range(50)]

    assert faster.count(Outcome.FASTER) >= 48
    assert slower.count(Outcome.SLOWER) >= 48
    assert Outcome.SLOWER not in faster
    assert Outcome.FASTER not in slower


def test_equal_candidates_are_judged_equal_though_other_processes_use_half_the_time() -> None:
    random = Random(2)
    outcomes = [outcome(1.0, stolen_half(random)) for _ in range(50)]

    assert outcomes.count(Outcome.AS_FAST) >= 45


def test_by_wall_clock_alone_few_orders_are_settled() -> None:
    """The processor's time makes the difference."""
    random = Random(3)

    def by_the_clock(cost_s: float) -> tuple[float, float]:
        clock_s, _ = stolen_half(random)(cost_s)
        return clock_s, clock_s

    outcomes = [outcome(1.1, by_the_clock) for _ in range(50)]

    assert outcomes.count(Outcome.SLOWER) < 10


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.3])
def test_settled_orders_are_wrong_in_less_than_one_of_twenty(scatter: float) -> None:
    """Looking after every pair must not make it more."""
    random = Random(4)
    wrong = 0
    for _ in range(400):
        test = PairedTest()
        while not test.is_exhausted and test.outcome is Outcome.OPEN:
            other, best = (COST_S * random.lognormvariate(0, scatter) for _ in "ab")
            test.add(Timing(1.001 * other), Timing(best))
        wrong += test.outcome is Outcome.FASTER
    assert wrong < 400 / 20


def test_a_great_difference_is_settled_by_the_fewest_pairs_and_an_alternating_one_never() -> None:
    clear, restless = PairedTest(), PairedTest()
    for at in range(MAX_PAIRS):
        restless.add(Timing(COST_S * (3 if at % 2 else 1)), Timing(COST_S * (1 if at % 2 else 3)))
    for at in range(MIN_PAIRS):
        assert clear.outcome is Outcome.OPEN
        clear.add(Timing(COST_S * (1 + at / 50)), Timing(3 * COST_S))

    assert clear.outcome is Outcome.FASTER
    assert clear.is_beyond(1.5)
    assert (restless.outcome, restless.is_exhausted) == (Outcome.OPEN, True)


def test_runs_alternate_and_each_candidate_is_first_in_turn() -> None:
    meter = FakeMeter()
    race = Race(_expected(), TimeBudget(float("inf"), meter))

    drive(race.run(sized(meter, 1e-6), sized(meter, 1.2e-6)))

    assert meter.runs == [1e-6, 1.2e-6, 1.2e-6, 1e-6, 1e-6, 1.2e-6]


@pytest.mark.parametrize(
    ("waited_s", "cost_s"), [(0.0, 1.0), (0.02, 1.0), (0.021, 0.6), (None, 0.6)]
)
def test_wall_clock_time_counts_only_where_the_process_did_not_wait_for_a_core(
    waited_s: float | None, cost_s: float
) -> None:
    """Two threads computed for 1.2 s between them, in a second."""
    assert Timing(1.0, 1.2, threads=2, waited_s=waited_s).cost_s == pytest.approx(cost_s)
    assert Timing(1.0).cost_s == 1.0  # of a GPU


def test_two_runs_are_compared_by_one_measure() -> None:
    undisturbed = Timing(1.0, 1.2, threads=2, waited_s=0.0)
    beside_others = Timing(3.0, 1.2, threads=2, waited_s=2.0)

    assert cost_ratio(undisturbed, beside_others) == pytest.approx(1.0)
    assert cost_ratio(undisturbed, undisturbed) == 1.0
