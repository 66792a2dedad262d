"""Pending releases are kept, tried in order, bounded, and done exactly once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPICursor

from tests.databases import PostgreSQL
from tests.service.state.conftest import MakeSettings
from upscaled.state import Hold, PaidResult, State, open_state
from upscaled.state.credits import CreditLedger, Retried
from upscaled.state.database import Database
from upscaled.state.errors import DatabaseFailed, HoldReleased
from upscaled.state.pending import PendingReleases
from upscaled.state.schema import STORED_RESULTS


@pytest.fixture
def ledger(database_url: str, make_settings: MakeSettings) -> Iterator[State]:
    with open_state(make_settings(database_url=database_url)) as opened:
        opened.keys.create("web", credits=5)
        yield opened


def test_a_hold_that_fails_is_moved_to_the_end_of_the_list(
    ledger: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    for number in range(4):
        ledger.credits.pending.add(Hold(1, f"r{number}"))

    def give_back(_: CreditLedger, hold: Hold) -> bool:
        tried.append(hold.request_id)
        if tried == ["r0", "r1"]:
            raise DatabaseFailed("away")
        return hold.request_id != "r2"

    monkeypatch.setattr(CreditLedger, "give_back", give_back)
    first = ledger.credits.retry_pending()
    assert (first.released, str(first.failure)) == (1, "away")
    assert len(ledger.credits.pending) == 3
    assert ledger.credits.retry_pending() == Retried(2)
    assert tried == ["r0", "r1", "r2", "r3", "r1"]
    assert len(ledger.credits.pending) == 0


def test_a_hold_that_is_added_twice_is_kept_once() -> None:
    pending = PendingReleases()
    pending.add(Hold(1, "r"))
    pending.add(Hold(1, "r"))
    assert len(pending) == 1


def test_a_full_list_leaves_its_oldest_to_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    pending = PendingReleases(limit=2)
    for number in range(3):
        pending.add(Hold(1, f"r{number}"))
    assert (len(pending), pending.first()) == (2, Hold(1, "r1"))
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_open_hold_is_released(ledger: State) -> None:
    hold = ledger.credits.hold(1, "r")
    assert ledger.credits.give_back(hold)
    assert not ledger.credits.give_back(hold)
    assert ledger.credits.balance(1) == 5
    with pytest.raises(HoldReleased):
        ledger.credits.capture(hold)
    assert ledger.credits.audit() == ()


def test_a_captured_hold_is_refunded_once_and_its_record_of_the_result_removed(
    ledger: State,
) -> None:
    hold = ledger.credits.hold(1, "r")
    ledger.credits.capture(hold, PaidResult("a.png", "image/png"))
    with ThreadPoolExecutor(8) as threads:
        given_back = list(threads.map(lambda _: ledger.credits.give_back(hold), range(8)))
    assert given_back.count(True) == 1
    assert ledger.credits.balance(1) == 5
    assert ledger.credits.audit() == ()
    with ledger.database.read() as connection:
        assert connection.execute(sa.select(STORED_RESULTS)).all() == []


def test_giving_back_an_unknown_hold_adds_no_credit(ledger: State) -> None:
    assert not ledger.credits.give_back(Hold(1, "never"))
    assert ledger.credits.balance(1) == 5


def test_what_cannot_be_given_back_is_pending_and_released_later(
    ledger: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = ledger.credits.hold(1, "r")
    with monkeypatch.context() as patched:
        for name in ("write", "autocommit"):
            patched.setattr(Database, name, refuse_to_write)
        with pytest.raises(DatabaseFailed):
            ledger.credits.give_back_or_retry(hold)
        assert isinstance(ledger.credits.retry_pending().failure, DatabaseFailed)
    assert len(ledger.credits.pending) == 1
    assert ledger.credits.retry_pending() == Retried(1)
    assert ledger.credits.balance(1) == 5
    assert ledger.credits.audit() == ()


def refuse_to_write(_: Database) -> None:
    raise DatabaseFailed("disk full")


def test_closing_gives_back_what_is_pending(database_url: str, make_settings: MakeSettings) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings) as state:
        state.keys.create("web", credits=1)
        hold = state.credits.hold(1, "r")
        state.credits.capture(hold)
        state.credits.pending.add(hold)
    with open_state(settings) as state:
        assert state.credits.balance(1) == 1


@pytest.fixture
def on_server(server_url: str, make_settings: MakeSettings) -> Iterator[State]:
    with open_state(make_settings(database_url=server_url)) as state:
        state.keys.create("web", credits=5)
        yield state


def cut_connections(server: PostgreSQL) -> None:
    """End all sessions, as a restart of the server does."""
    server.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname LIKE 'test%'"
    )


def test_a_server_that_restarts_between_two_steps_is_not_noticed(
    on_server: State, postgresql: PostgreSQL
) -> None:
    state = on_server
    hold = state.credits.hold(1, "r")
    cut_connections(postgresql)
    state.credits.capture(hold)
    cut_connections(postgresql)
    assert state.credits.balance(1) == 4


@pytest.mark.parametrize("step", ["hold", "capture"])
def test_no_credit_is_lost_where_an_answer_is_lost_after_the_commit(
    on_server: State, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server commits, and the connection ends before it can say so."""
    state = on_server
    assert state.holder.id  # its own commit is not what gets lost
    hold = Hold(1, "r") if step == "hold" else state.credits.hold(1, "r")
    steps: dict[str, Callable[[], object]] = {
        "hold": lambda: state.credits.hold(1, "r"),
        "capture": lambda: state.credits.capture(hold),
    }
    with monkeypatch.context() as patched:
        patched.setattr("sqlalchemy.engine.default.DefaultDialect.do_execute", execute_and_lose)
        with pytest.raises(DatabaseFailed) as failure:
            steps[step]()
    assert failure.value.is_connection_lost
    assert state.credits.balance(1) == 4
    if step == "capture":
        state.credits.pending.add(hold)
    assert state.credits.retry_pending() == Retried(1)
    assert state.credits.balance(1) == 5
    assert state.credits.audit() == ()


def execute_and_lose(_dialect: object, cursor: DBAPICursor, statement: str, *values: Any) -> None:
    """Execute a statement, which is a transaction by itself, and lose the answer."""
    import psycopg

    cursor.execute(statement, values[0])
    raise psycopg.OperationalError("the connection is lost")
