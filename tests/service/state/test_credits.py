"""The ledger: exactly once, never below zero, on both databases and under any number of them."""

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.service.state.conftest import Clock, MakeSettings, all_of, end_leases, key_with
from tests.service.state.connections import statements
from upscaled.config import Settings, load_settings
from upscaled.errors import InsufficientApiCredits
from upscaled.state import Hold, State, open_state
from upscaled.state.errors import HoldReleased, InvalidValue, StateError, UnknownName
from upscaled.state.holder import Holders
from upscaled.state.ledger import MAX_GRANT
from upscaled.state.opening import longest_request_s
from upscaled.state.schema import CREDIT_ENTRIES

SPENDING = Path(__file__).with_name("spending.py")


@pytest.fixture
def ledger(database_url: str, make_settings: MakeSettings, clock: Clock) -> Iterator[State]:
    with open_state(make_settings(database_url=database_url), all_of(clock)) as opened:
        yield opened


def entry_count(state: State, kind: str) -> int:
    query = sa.select(sa.func.count()).where(CREDIT_ENTRIES.c.kind == kind)
    with state.database.read() as connection:
        return int(connection.execute(query).scalar_one())


def test_a_captured_hold_costs_one_credit(ledger: State) -> None:
    key_id = key_with(ledger, 3)
    hold = ledger.credits.hold(key_id, "r1")
    assert ledger.credits.balance(key_id) == 2
    ledger.credits.capture(hold)
    assert ledger.credits.balance(key_id) == 2


def test_the_last_credit_can_be_spent_and_no_more(ledger: State) -> None:
    key_id = key_with(ledger, 1)
    ledger.credits.hold(key_id, "r1")
    with pytest.raises(InsufficientApiCredits):
        ledger.credits.hold(key_id, "r2")
    assert ledger.credits.balance(key_id) == 0
    assert ledger.credits.audit() == ()


def test_a_refused_hold_leaves_nothing_behind(ledger: State) -> None:
    key_id = key_with(ledger, 0)
    with pytest.raises(InsufficientApiCredits):
        ledger.credits.hold(key_id, "r1")
    assert entry_count(ledger, "hold") == 0
    ledger.credits.add("web", 1)
    ledger.credits.hold(key_id, "r1")  # the refused try did not use the id up


def test_requests_of_a_key_wait_for_each_other_at_the_last_statement_only(ledger: State) -> None:
    """That which changes the balance: PostgreSQL locks its row until the transaction ends."""
    key_id = key_with(ledger, 1)
    with statements() as holding:
        hold = ledger.credits.hold(key_id, "r1")
    with statements() as releasing:
        assert ledger.credits.give_back(hold)
    for each in (holding, releasing):
        changing = ["UPDATE api_keys" in text for text in each]
        assert changing.count(True) == 1
        assert changing[-1]


def test_capture_and_release_settle_a_hold_once_whatever_is_retried(ledger: State) -> None:
    key_id = key_with(ledger, 5)
    captured = ledger.credits.hold(key_id, "r1")
    for _ in range(3):
        ledger.credits.capture(captured)
        assert not ledger.credits.release(captured)
    released = ledger.credits.hold(key_id, "r2")
    assert ledger.credits.release(released)
    for _ in range(3):
        assert not ledger.credits.release(released)
        with pytest.raises(HoldReleased):
            ledger.credits.capture(released)
    assert ledger.credits.balance(key_id) == 4
    assert (entry_count(ledger, "capture"), entry_count(ledger, "release")) == (1, 1)


def test_a_request_id_serves_for_one_hold_only(ledger: State) -> None:
    key_id = key_with(ledger, 5)
    hold = ledger.credits.hold(key_id, "r1")
    with pytest.raises(StateError, match="has a hold already"):
        ledger.credits.hold(key_id, "r1")
    ledger.credits.capture(hold)
    with pytest.raises(StateError, match="has a hold already"):
        ledger.credits.hold(key_id, "r1")
    assert ledger.credits.balance(key_id) == 4


def test_another_keys_hold_cannot_be_settled(ledger: State) -> None:
    own, other = key_with(ledger, 1, "own"), key_with(ledger, 1, "other")
    ledger.credits.hold(own, "r1")
    assert not ledger.credits.release(Hold(other, "r1"))
    with pytest.raises(HoldReleased):
        ledger.credits.capture(Hold(other, "r1"))
    assert (ledger.credits.balance(own), ledger.credits.balance(other)) == (0, 1)


def test_added_credits_count_at_once(ledger: State) -> None:
    key_id = key_with(ledger, 0)
    assert ledger.credits.add("web", 7) == 7
    assert ledger.credits.add("web", 5) == 12
    assert ledger.credits.balance(key_id) == ledger.credits.show("web") == 12


def test_credits_are_taken_and_moved_in_the_ledger_of_both_databases(ledger: State) -> None:
    key_id = key_with(ledger, 5)
    ledger.keys.create("shop")
    hold = ledger.credits.hold(key_id, "r1")
    with pytest.raises(InvalidValue, match="the key has 4"):
        ledger.credits.take("web", 5)
    with pytest.raises(InvalidValue, match="the key has 4"):
        ledger.credits.transfer("web", "shop", 5)
    with pytest.raises(UnknownName, match="none"):
        ledger.credits.transfer("web", "none", 1)
    assert ledger.credits.take("web", 1) == 3
    assert ledger.credits.transfer("web", "shop", 3) == (0, 3)
    assert ledger.credits.audit() == ()
    ledger.credits.release(hold)
    assert [ledger.credits.show(name) for name in ("web", "shop")] == [1, 3]
    assert ledger.credits.audit() == ()


def test_transfers_both_ways_at_once_all_succeed_on_both_databases(ledger: State) -> None:
    for name in ("web", "shop"):
        key_with(ledger, 50, name)
    ways = (("web", "shop"), ("shop", "web")) * 50
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda way: ledger.credits.transfer(way[0], way[1], 1), ways))
    assert [ledger.credits.show(name) for name in ("web", "shop")] == [50, 50]
    assert ledger.credits.audit() == ()


@pytest.mark.parametrize("amount", [0, -1, MAX_GRANT + 1])
def test_credits_out_of_range_are_refused(state: State, amount: int) -> None:
    for name in ("web", "shop"):
        state.keys.create(name)
    for change in (
        partial(state.credits.add, "web"),
        partial(state.credits.take, "web"),
        partial(state.credits.transfer, "web", "shop"),
    ):
        with pytest.raises(InvalidValue, match="credits: must be"):
            change(amount)
    assert state.credits.show("web") == state.credits.show("shop") == 0


@pytest.mark.parametrize("amount", [1, MAX_GRANT])
def test_credits_at_the_ends_of_the_range_are_added(state: State, amount: int) -> None:
    state.keys.create("web")
    assert state.credits.add("web", amount) == amount


def test_an_unknown_name_is_in_the_error(state: State) -> None:
    with pytest.raises(UnknownName, match="unknown"):
        state.credits.add("unknown", 1)
    with pytest.raises(UnknownName, match="unknown"):
        state.credits.show("unknown")


def test_the_database_itself_refuses_a_negative_balance(ledger: State) -> None:
    key_with(ledger, 1)
    with pytest.raises(sa.exc.IntegrityError), ledger.database.write() as connection:
        connection.execute(sa.text("UPDATE api_keys SET balance = -1"))


def test_the_audit_finds_a_balance_that_does_not_add_up(ledger: State) -> None:
    key_id = key_with(ledger, 5)
    assert ledger.credits.audit() == ()
    with ledger.database.write() as connection:
        connection.execute(sa.text("UPDATE api_keys SET balance = 6"))
    (found,) = ledger.credits.audit()
    assert (found.key_id, found.balance, found.entries_sum) == (key_id, 6, 5)


def test_the_audit_finds_a_hold_that_got_lost(ledger: State) -> None:
    key_id = key_with(ledger, 5)
    ledger.credits.hold(key_id, "r1")
    assert ledger.credits.audit() == ()
    with ledger.database.write() as connection:
        connection.execute(sa.text("DELETE FROM open_holds"))
    (found,) = ledger.credits.audit()
    assert (found.unsettled_holds, found.open_holds) == (1, 0)


def test_threads_that_settle_one_hold_at_once_settle_it_once(ledger: State) -> None:
    key_id = key_with(ledger, 50)
    start = threading.Barrier(8)

    def settle(hold: Hold, is_capture: bool) -> None:
        start.wait()
        if not is_capture:
            ledger.credits.release(hold)
            return
        with suppress(HoldReleased):
            ledger.credits.capture(hold)

    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            hold = ledger.credits.hold(key_id, f"r{number}")
            list(pool.map(settle, [hold] * 8, [True, False] * 4))
    assert entry_count(ledger, "capture") + entry_count(ledger, "release") == 10
    assert ledger.credits.balance(key_id) == 50 - entry_count(ledger, "capture")
    assert ledger.credits.audit() == ()


def test_the_hold_of_a_running_process_is_not_released(
    ledger: State, database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    key_id = key_with(ledger, 2)
    hold = ledger.credits.hold(key_id, "r1")
    with open_state(make_settings(database_url=database_url), all_of(clock)) as other:
        assert other.settle_left() == 0
        assert other.credits.balance(key_id) == 1
    ledger.credits.capture(hold)
    assert ledger.credits.balance(key_id) == 1


def test_a_closed_state_gives_its_holds_back(
    database_url: str, make_settings: MakeSettings, clock: Clock
) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings, all_of(clock)) as first:
        key_id = key_with(first, 2)
        first.credits.hold(key_id, "r1")
    with open_state(settings, all_of(clock)) as second:
        assert second.credits.balance(key_id) == 2
        with second.holder.survey() as holders:
            assert holders == Holders([], [], [])


def test_a_hold_is_given_back_when_it_is_too_old_for_any_request(
    make_settings: MakeSettings, clock: Clock
) -> None:
    # Of the four workers one may be left, which tries each of five images four times.
    settings = make_settings(
        work_timeout_s=10, source_timeout_s=5, max_queue=3, workers=2, device="cuda:0,cuda:1"
    )
    assert longest_request_s(settings) == 5 + 4 * 10 * 5
    with open_state(settings, all_of(clock)) as state:
        key_id = key_with(state, 1)
        hold = state.credits.hold(key_id, "r1")
        clock.now_s += 205
        assert state.sweep().holds_released == 0
        clock.now_s += 1
        assert state.sweep().holds_released == 1
        assert state.credits.balance(key_id) == 1
        with pytest.raises(HoldReleased):
            state.credits.capture(hold)


def test_the_holds_of_a_killed_process_are_given_back_at_the_next_start(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings) as state:
        key_id = key_with(state, 5)
    holding = f"""
import time
from pathlib import Path
from upscaled.config import load_settings
from upscaled.state import open_state
settings = load_settings(
    {{}}, data_dir=Path({str(settings.data_dir)!r}), database_url={database_url!r}
)
state = open_state(settings)
state.credits.hold({key_id}, "r1")
state.credits.hold({key_id}, "r2")
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "held\n"
        with open_state(settings) as state:
            assert state.credits.balance(key_id) == 3
        process.kill()
        process.wait()
    end_leases(settings)
    with open_state(settings) as state:
        assert state.credits.balance(key_id) == 5
        assert state.credits.audit() == ()


@dataclass(frozen=True)
class Spent:
    """The report of the processes of spending.py."""

    captured: list[str]
    refused_count: int


def spend(
    settings: Settings,
    key_id: int,
    *,
    processes: int,
    count: int,
    failures_percent: int,
    kills: int,
) -> Spent:
    numbers = (key_id, processes, count, failures_percent, kills)
    done = subprocess.run(
        [sys.executable, SPENDING, settings.database_url, settings.data_dir, *map(str, numbers)],
        capture_output=True,
        text=True,
    )
    # Where the run takes longer than a lease, running processes release the holds of killed ones.
    is_expected = re.compile(r"a front end has not renewed its lease for \d+ s").fullmatch
    said = [line for line in done.stderr.splitlines() if not is_expected(line)]
    assert (done.returncode, said) == (0, [])
    lines = done.stdout.splitlines()
    captured = [line.split()[1] for line in lines if line.startswith("captured ")]
    return Spent(captured, lines.count("refused"))


def test_processes_that_compete_for_the_last_credits_spend_exactly_those(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings) as state:
        key_id = key_with(state, 80)
        spent = spend(settings, key_id, processes=5, count=24, failures_percent=0, kills=0)
        assert (len(spent.captured), spent.refused_count) == (80, 40)
        assert state.credits.balance(key_id) == 0
        assert state.credits.audit() == ()


def check_ledger_under_kills(settings: Settings, *, processes: int, count: int, kills: int) -> None:
    with open_state(settings) as state:
        key_id = key_with(state, 1_000_000)
    spent = spend(
        settings, key_id, processes=processes, count=count, failures_percent=30, kills=kills
    )
    end_leases(settings)
    with open_state(settings) as state:  # gives back what the killed ones had on hold
        captures = entry_count(state, "capture")
        assert state.credits.balance(key_id) == 1_000_000 - captures
        assert state.credits.audit() == ()
        assert entry_count(state, "hold") == captures + entry_count(state, "release")
        with state.database.read() as connection:
            query = sa.select(CREDIT_ENTRIES.c.request_id).where(CREDIT_ENTRIES.c.kind == "capture")
            charged = list(connection.execute(query).scalars())
    assert len(set(charged)) == len(charged) == captures
    assert len(set(spent.captured)) == len(spent.captured)
    # A kill may fall between a capture and its report: at most one for each.
    assert set(spent.captured) <= set(charged)
    assert len(charged) - len(spent.captured) <= kills


@pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)],
    indirect=True,
)
def test_the_ledger_is_consistent_after_random_kills(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    check_ledger_under_kills(settings, processes=4, count=30, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_ledger_is_consistent_after_fifty_kills_of_eight_processes(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    check_ledger_under_kills(settings, processes=8, count=1000, kills=50)


class LedgerRules(RuleBasedStateMachine):
    """Any order of grants, holds, settlements and sweeps, against plain arithmetic."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.state = open_state(load_settings({}, data_dir=self.folder), all_of(Clock()))
        self.name = f"key-{uuid.uuid4()}"  # not `random`: hypothesis seeds it
        self.key_id = key_with(self.state, 0, self.name)
        self.expected = 0
        self.open: list[Hold] = []
        self.settled: list[tuple[Hold, str]] = []
        self.requests = 0

    def teardown(self) -> None:
        self.state.close()

    @rule(amount=st.integers(1, 3))
    def add(self, amount: int) -> None:
        self.expected += amount
        assert self.state.credits.add(self.name, amount) == self.expected

    @rule()
    def hold(self) -> None:
        self.requests += 1
        request_id = f"{self.name}-{self.requests}"
        if self.expected == 0:
            with pytest.raises(InsufficientApiCredits):
                self.state.credits.hold(self.key_id, request_id)
            return
        self.open.append(self.state.credits.hold(self.key_id, request_id))
        self.expected -= 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        hold = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if data.draw(st.booleans()):
            self.state.credits.capture(hold)
            self.settled.append((hold, "capture"))
        else:
            assert self.state.credits.release(hold)
            self.expected += 1
            self.settled.append((hold, "release"))

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        hold, kind = data.draw(st.sampled_from(self.settled))
        assert not self.state.credits.release(hold)
        if kind == "capture":
            self.state.credits.capture(hold)
        else:
            with pytest.raises(HoldReleased):
                self.state.credits.capture(hold)

    @rule()
    def sweep(self) -> None:
        assert self.state.settle_left() == 0

    @invariant()
    def books_are_right(self) -> None:
        assert self.state.credits.balance(self.key_id) == self.expected
        assert self.state.credits.audit() == ()


@pytest.mark.slow
def test_any_order_of_calls_keeps_the_ledger_consistent(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (LedgerRules,), {"folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
