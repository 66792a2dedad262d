"""Holds on PostgreSQL: one statement for each step, whatever else goes on with the key."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, key_with
from tests.service.state.connections import statements
from upscaled.errors import InsufficientApiCredits
from upscaled.state import Hold, PaidResult, State, open_state
from upscaled.state.schema import CREDIT_ENTRIES, OPEN_HOLDS, STORED_RESULTS
from upscaled.state.server_ledger import place_hold

THREADS = 8


@pytest.fixture
def state(server_url: str, make_settings: MakeSettings) -> Iterator[State]:
    with open_state(make_settings(database_url=server_url)) as opened:
        yield opened


def count(state: State, table: sa.Table) -> int:
    with state.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_each_step_is_one_statement(state: State) -> None:
    key_id = key_with(state, 3)
    state.credits.hold(key_id, "the first, for which this process writes its row")
    with statements() as seen:
        hold = state.credits.hold(key_id, "r1")
    assert len(seen) == 1
    with statements() as seen:
        state.credits.capture(hold, PaidResult("r1.png", "image/png"))
    assert len(seen) == 1
    other = state.credits.hold(key_id, "r2")
    with statements() as seen:
        assert state.credits.give_back(other)
    assert len(seen) == 1
    assert state.credits.audit() == ()
    assert count(state, STORED_RESULTS) == 1


def test_a_holder_declared_dead_holds_nothing(state: State) -> None:
    key_id = key_with(state, 1)
    before = count(state, CREDIT_ENTRIES)
    with state.database.autocommit() as connection:
        assert not place_hold(connection, Hold(key_id, "r1"), "unknown", at_s=0)
    assert state.credits.balance(key_id) == 1
    assert (count(state, CREDIT_ENTRIES), count(state, OPEN_HOLDS)) == (before, 0)


def test_steps_of_one_key_at_once_never_go_below_zero_nor_lose_a_credit(state: State) -> None:
    """Half of them are given back, so that others' conditions are checked again as they wait."""
    key_id = key_with(state, THREADS)

    def spend(number: int) -> int:
        captured = 0
        for step in range(20):
            try:
                hold = state.credits.hold(key_id, f"{number}-{step}")
            except InsufficientApiCredits:
                continue
            if step % 10 == number:
                state.credits.capture(hold)
                captured += 1
            else:
                assert state.credits.give_back(hold)
        return captured

    with ThreadPoolExecutor(THREADS) as threads:
        captured = sum(threads.map(spend, range(THREADS)))
    assert captured > 0
    assert state.credits.balance(key_id) == THREADS - captured
    assert state.credits.audit() == ()
    assert count(state, OPEN_HOLDS) == 0


@pytest.mark.parametrize("settle", ["capture", "release"])
def test_a_hold_is_settled_by_one_of_many_at_once(state: State, settle: str) -> None:
    key_id = key_with(state, 1)
    hold = state.credits.hold(key_id, "r1")
    release: Callable[[Hold], object] = state.credits.release
    with ThreadPoolExecutor(THREADS) as threads:
        if settle == "capture":
            list(threads.map(state.credits.capture, [hold] * THREADS))
            assert not release(hold)
        else:
            assert sum(map(bool, threads.map(release, [hold] * THREADS))) == 1
    assert state.credits.balance(key_id) == (0 if settle == "capture" else 1)
    assert state.credits.audit() == ()
