"""The rate of a key over several front ends: exact, by the database's clock, truthful in its waits.

Intervals are so long that the time which a test takes itself does not matter.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings
from upscaled.errors import RateLimitExceeded
from upscaled.state import RateLimit, State, open_state
from upscaled.state.rate import AS_SET, RateLimiter, SharedRate
from upscaled.state.schema import KEY_RATES

HOURLY = 0.001
"""Requests a second: one in 1000 s."""


@dataclass
class Counted:
    """Rates on a database whose time a test advances."""

    state: State

    def limit(self, per_s: float, burst: int) -> SharedRate:
        return SharedRate(self.state.database, per_s, burst)

    def wait(self, seconds: float) -> None:
        with self.state.database.write() as connection:
            earlier = KEY_RATES.c.whole_at_ns - round(seconds * 1e9)
            connection.execute(sa.update(KEY_RATES).values(whole_at_ns=earlier))


@pytest.fixture
def counted(server_url: str, make_settings: MakeSettings) -> Iterator[Counted]:
    with open_state(make_settings(database_url=server_url)) as state:
        yield Counted(state)


def passes(rate: RateLimiter, key_id: int = 1, own: RateLimit = AS_SET) -> bool:
    return retry_after_s(rate, key_id, own) == 0


def retry_after_s(rate: RateLimiter, key_id: int = 1, own: RateLimit = AS_SET) -> int:
    """Return the wait that a refusal names; 0 for a request that passes."""
    try:
        rate.take(key_id, own)
    except RateLimitExceeded as refused:
        return int(refused.headers["Retry-After"])
    return 0


def test_a_burst_is_admitted_and_refilled_one_by_one(counted: Counted) -> None:
    rate = counted.limit(HOURLY, 3)
    assert [passes(rate) for _ in range(5)] == [True] * 3 + [False] * 2
    counted.wait(1000)
    assert [passes(rate), passes(rate)] == [True, False]
    counted.wait(100_000)
    assert sum(passes(rate) for _ in range(5)) == 3


def test_keys_do_not_share_a_rate(counted: Counted) -> None:
    rate = counted.limit(HOURLY, 1)
    assert [passes(rate, 1), passes(rate, 2), passes(rate, 1)] == [True, True, False]


def test_a_refusal_names_the_wait_after_which_a_request_passes(counted: Counted) -> None:
    rate = counted.limit(HOURLY, 2)
    assert [retry_after_s(rate) for _ in range(2)] == [0, 0]
    wait_s = retry_after_s(rate)
    assert 940 < wait_s <= 1000
    counted.wait(wait_s - 60)
    assert not passes(rate)
    counted.wait(60)
    assert passes(rate)


@pytest.mark.parametrize("own", [RateLimit(0.001, 1), RateLimit(1_000_000, 1_000_000)])
def test_the_ends_of_the_range_are_counted(counted: Counted, own: RateLimit) -> None:
    assert passes(counted.limit(5, 5), own=own)


def test_what_was_spent_is_carried_over_to_a_slower_rate_also_by_a_refusal(
    counted: Counted,
) -> None:
    rate = counted.limit(10 * HOURLY, 5)
    assert [passes(rate) for _ in range(5)] == [True] * 5
    slower = RateLimit(HOURLY, 5)
    wait_s = retry_after_s(rate, own=slower)
    assert 900 < wait_s <= 1000  # shorter by ten times what it took until here
    counted.wait(wait_s - 100)
    assert not passes(rate, own=slower)
    counted.wait(100)
    assert [passes(rate, own=slower), passes(rate, own=slower)] == [True, False]


def test_a_faster_rate_holds_at_once(counted: Counted) -> None:
    rate = counted.limit(HOURLY, 2)
    assert [passes(rate) for _ in range(3)] == [True, True, False]
    assert retry_after_s(rate, own=RateLimit(0.01, 2)) <= 100
    counted.wait(100)
    assert passes(rate, own=RateLimit(0.01, 2))


def test_the_wait_after_a_burst_is_lowered_is_at_most_the_new_burst(counted: Counted) -> None:
    rate = counted.limit(HOURLY, 100)
    for _ in range(100):
        rate.take(1)
    assert 900 < retry_after_s(rate, own=RateLimit(HOURLY, 1)) <= 1000


def test_two_front_ends_let_exactly_the_burst_of_a_key_through(
    counted: Counted, server_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=server_url, rate_per_s=HOURLY, rate_burst=100)
    with (
        open_state(settings) as first,
        open_state(settings) as second,
        ThreadPoolExecutor(8) as threads,
    ):
        tries = [(first.rate, second.rate)[number % 2] for number in range(300)]
        passed = sum(threads.map(passes, tries))
    assert passed == 100


@pytest.mark.slow
def test_two_front_ends_let_the_rate_of_a_key_through_in_the_long_run(
    counted: Counted, server_url: str, make_settings: MakeSettings
) -> None:
    """Never more than the rate says, and at most 2 % less while requests never stop."""
    settings = make_settings(database_url=server_url, rate_per_s=20, rate_burst=100)
    ended = threading.Event()

    def send(state: State) -> int:
        passed = 0
        while True:
            was_ended = ended.is_set()
            try:
                state.rate.take(1)
                passed += 1
            except RateLimitExceeded:
                if was_ended:  # so that nothing is left which a pause of the machine has saved up
                    return passed
                time.sleep(0.005)

    with (
        open_state(settings) as first,
        open_state(settings) as second,
        ThreadPoolExecutor(4) as threads,
    ):
        begun_s = time.monotonic()
        clients = [threads.submit(send, state) for state in (first, second) * 2]
        time.sleep(20)
        lasted_s = time.monotonic() - begun_s
        ended.set()
        passed = sum(client.result() for client in clients)
        ended_s = time.monotonic() - begun_s
    assert 100 + 0.98 * 20 * lasted_s <= passed <= 100 + 20 * ended_s


def test_no_request_waits_for_a_disk(counted: Counted) -> None:
    query = "SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r' ORDER BY 1"
    with counted.state.database.read() as connection:
        unlogged = list(connection.execute(sa.text(query)).scalars())
    assert unlogged == ["key_rates", "under_way"]
