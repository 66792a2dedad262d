"""The rate of one key: bursts, the long run, truthful waits, and no growth."""

import inspect
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaled.errors import RateLimitExceeded
from upscaled.state.errors import InvalidValue
from upscaled.state.rate import AS_SET, Rate, RateLimit


@dataclass
class Watch:
    """A monotonic clock that runs only when a test advances it."""

    now_ns: int = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> Watch:
    return Watch()


def passes(rate: Rate, key_id: int = 1, own: RateLimit = AS_SET) -> bool:
    try:
        rate.take(key_id, own)
    except RateLimitExceeded:
        return False
    return True


def test_a_burst_passes_and_the_next_request_does_not(clock: Watch) -> None:
    rate = Rate(5, 5, clock)
    assert [passes(rate) for _ in range(7)] == [True] * 5 + [False] * 2


def test_the_allowance_is_refilled_one_by_one(clock: Watch) -> None:
    rate = Rate(5, 5, clock)
    assert sum(passes(rate) for _ in range(9)) == 5
    clock.wait(0.2)
    assert [passes(rate), passes(rate)] == [True, False]
    clock.wait(60)
    assert sum(passes(rate) for _ in range(9)) == 5


def test_just_before_its_time_a_request_is_refused(clock: Watch) -> None:
    rate = Rate(5, 1, clock)
    rate.take(1)
    clock.wait(0.199)
    assert not passes(rate)
    clock.wait(0.001)
    assert passes(rate)


def test_a_refused_request_is_not_counted(clock: Watch) -> None:
    rate = Rate(1, 1, clock)
    rate.take(1)
    for _ in range(10):
        assert not passes(rate)
    clock.wait(1)
    assert passes(rate)


def test_keys_do_not_share_a_rate(clock: Watch) -> None:
    rate = Rate(1, 1, clock)
    assert [passes(rate, 1), passes(rate, 2), passes(rate, 1)] == [True, True, False]


def test_the_default_rate_names_one_second(clock: Watch) -> None:
    rate = Rate(5, 5, clock)
    for _ in range(5):
        rate.take(1)
    with pytest.raises(RateLimitExceeded) as refused:
        rate.take(1)
    assert refused.value.retry_after_s == 1
    assert refused.value.headers == {"Retry-After": "1"}


@given(
    per_s=st.one_of(st.floats(0.001, 1000), st.sampled_from([1.0, 0.5, 5.0, 1 / 3])),
    burst=st.integers(1, 50),
    waits_s=st.lists(st.floats(0, 5), max_size=60),
)
def test_the_promised_wait_is_the_least_whole_number_of_seconds(
    per_s: float, burst: int, waits_s: list[float]
) -> None:
    clock = Watch()
    rate = Rate(per_s, burst, clock)
    for wait_s in waits_s:
        clock.wait(wait_s)
        passes(rate)
    while passes(rate):
        pass
    with pytest.raises(RateLimitExceeded) as refused:
        rate.take(1)
    promised_s = refused.value.retry_after_s
    if promised_s > 1:  # 1 is the least the header can say
        clock.wait(promised_s - 1)
        assert not passes(rate)
        clock.wait(1 - promised_s)
    clock.wait(promised_s)
    assert passes(rate)


@pytest.mark.parametrize(("per_s", "burst"), [(5, 5), (0.5, 3), (100, 1)])
def test_in_the_long_run_exactly_the_limit_passes(clock: Watch, per_s: float, burst: int) -> None:
    rate = Rate(per_s, burst, clock)
    passed = 0
    for _ in range(60 * 500):
        passed += passes(rate)
        clock.wait(0.002)
    assert passed == pytest.approx(burst + 60 * per_s, abs=1)


def test_threads_together_pass_exactly_the_burst(clock: Watch) -> None:
    rate = Rate(5, 20, clock)
    start = threading.Barrier(16)

    def take(_: int) -> int:
        start.wait()
        return sum(passes(rate) for _ in range(50))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(take, range(16))) == 20


def test_idle_keys_take_no_memory(clock: Watch) -> None:
    rate = Rate(5, 5, clock)
    for key_id in range(5_000):
        clock.wait(0.01)
        rate.take(key_id)
    tracemalloc.start()
    for key_id in range(5_000, 30_000):
        clock.wait(0.01)
        rate.take(key_id)
    # Other threads of the process allocate too.
    of_rate = tracemalloc.Filter(inclusive=True, filename_pattern=inspect.getfile(Rate))
    snapshot = tracemalloc.take_snapshot().filter_traces([of_rate])
    tracemalloc.stop()
    assert sum(trace.size for trace in snapshot.traces) < 200_000


def test_the_count_of_a_busy_key_is_kept_among_many_keys(clock: Watch) -> None:
    rate = Rate(0.001, 1, clock)
    for key_id in range(5_000):
        rate.take(key_id)
    assert not any(passes(rate, key_id) for key_id in range(5_000))


def count(rate: Rate, own: RateLimit, key_id: int = 1) -> int:
    """Return how many pass at once."""
    passed = 0
    while passes(rate, key_id, own):
        passed += 1
    return passed


def test_a_key_has_the_rate_of_its_own_and_others_keep_theirs(clock: Watch) -> None:
    rate = Rate(5, 5, clock)
    fast = RateLimit(per_s=50, burst=20)
    assert (count(rate, fast, 1), count(rate, AS_SET, 2)) == (20, 5)
    clock.wait(0.2)
    assert (count(rate, fast, 1), count(rate, AS_SET, 2)) == (10, 1)


@pytest.mark.parametrize(
    ("own", "at_once", "after_a_second"),
    [
        (RateLimit(), 5, 5),
        (RateLimit(per_s=2), 5, 2),
        (RateLimit(burst=2), 2, 2),
        (RateLimit(burst=9), 9, 5),
    ],
)
def test_a_limit_that_a_key_has_not_of_its_own_is_the_settings(
    clock: Watch, own: RateLimit, at_once: int, after_a_second: int
) -> None:
    rate = Rate(5, 5, clock)
    assert count(rate, own) == at_once
    clock.wait(1)
    assert count(rate, own) == after_a_second


def test_a_rate_that_is_raised_holds_from_the_next_request_on(clock: Watch) -> None:
    """Spent requests come back at the new rate."""
    rate = Rate(5, 5, clock)
    slow, fast = RateLimit(per_s=0.001, burst=5), RateLimit(per_s=10, burst=5)
    assert count(rate, slow) == 5
    assert count(rate, fast) == 0
    clock.wait(0.1)
    assert count(rate, fast) == 1
    assert count(rate, RateLimit(per_s=10, burst=8)) == 3


def test_the_wait_after_a_burst_is_lowered_is_at_most_the_new_burst(clock: Watch) -> None:
    rate = Rate(5, 5, clock)
    assert count(rate, RateLimit(per_s=1, burst=1000)) == 1000
    low = RateLimit(per_s=1, burst=2)
    with pytest.raises(RateLimitExceeded) as refused:
        rate.take(1, low)
    assert refused.value.retry_after_s == 1
    clock.wait(1)
    assert count(rate, low) == 1


@pytest.mark.parametrize("per_s", [0.001, 1_000_000, None])
@pytest.mark.parametrize("burst", [1, 1_000_000, None])
def test_a_keys_own_rate_at_its_bounds_is_accepted(per_s: float | None, burst: int | None) -> None:
    RateLimit(per_s, burst).check()


@pytest.mark.parametrize(
    "own",
    [
        *(RateLimit(per_s=per_s) for per_s in (0, -1, 0.0009, 1_000_001, float("nan"))),
        *(RateLimit(burst=burst) for burst in (0, -1, 1_000_001)),
    ],
)
def test_a_keys_own_rate_out_of_bounds_is_refused_by_name(own: RateLimit) -> None:
    with pytest.raises(InvalidValue, match=r"a rate of|a burst of"):
        own.check()
