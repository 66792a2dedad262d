"""What is owed is kept, tried in order, bounded, and given back exactly once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import PostgreSQL
from upscaled.config import Settings
from upscaled.state import Hold, PaidResult, State, open_state
from upscaled.state.database import Database
from upscaled.state.errors import DatabaseFailed, HoldReleased
from upscaled.state.owed import OwedCredits
from upscaled.state.schema import STORED_RESULTS


@pytest.fixture
def ledger(database_url: str, make_settings: Callable[..., Settings]) -> Iterator[State]:
    with open_state(make_settings(database_url=database_url)) as opened:
        opened.keys.create("web", credits=5)
        yield opened


def test_a_hold_that_fails_goes_to_the_end_of_the_list() -> None:
    owed, tried = OwedCredits(), []
    given_back: list[Hold] = []
    for number in range(4):
        owed.add(Hold(1, f"r{number}"))

    def give_back(hold: Hold) -> bool:
        tried.append(hold.request_id)
        if tried == ["r0", "r1"]:
            raise DatabaseFailed("away")
        return hold.request_id != "r2"

    with pytest.raises(DatabaseFailed):
        owed.settle(give_back, given_back.append)
    assert len(owed) == 3
    assert owed.settle(give_back, given_back.append) == 2
    assert tried == ["r0", "r1", "r2", "r3", "r1"]
    assert [hold.request_id for hold in given_back] == ["r0", "r3", "r1"]
    assert len(owed) == 0


def test_a_hold_that_is_owed_twice_is_kept_once() -> None:
    owed = OwedCredits()
    owed.add(Hold(1, "r"))
    owed.add(Hold(1, "r"))
    assert len(owed) == 1


def test_a_full_list_leaves_its_oldest_to_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    owed = OwedCredits(limit=2)
    for number in range(3):
        owed.add(Hold(1, f"r{number}"))
    kept: list[str] = []

    def give_back(hold: Hold) -> bool:
        kept.append(hold.request_id)
        return True

    owed.settle(give_back)
    assert kept == ["r1", "r2"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_open_hold_is_released(ledger: State) -> None:
    hold = ledger.credits.hold(1, "r")
    assert ledger.credits.give_back(hold)
    assert not ledger.credits.give_back(hold)
    assert ledger.credits.balance(1) == 5
    with pytest.raises(HoldReleased):
        ledger.credits.capture(hold)
    assert ledger.credits.audit() == ()


def test_a_captured_hold_is_granted_again_once_and_its_result_forgotten(ledger: State) -> None:
    hold = ledger.credits.hold(1, "r")
    ledger.credits.capture(hold, PaidResult("a.png", "image/png"))
    with ThreadPoolExecutor(8) as threads:
        given_back = list(threads.map(lambda _: ledger.credits.give_back(hold), range(8)))
    assert given_back.count(True) == 1
    assert ledger.credits.balance(1) == 5
    assert ledger.credits.audit() == ()
    with ledger.database.read() as connection:
        assert connection.execute(sa.select(STORED_RESULTS)).all() == []


def test_a_hold_that_never_was_gives_nothing(ledger: State) -> None:
    assert not ledger.credits.give_back(Hold(1, "never"))
    assert ledger.credits.balance(1) == 5


def test_what_cannot_be_given_back_is_owed_and_settled_later(
    ledger: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = ledger.credits.hold(1, "r")
    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", refuse_to_write)
        with pytest.raises(DatabaseFailed):
            ledger.credits.give_back_or_owe(hold)
        with pytest.raises(DatabaseFailed):
            ledger.credits.settle_owed()
    assert len(ledger.credits.owed) == 1
    assert ledger.credits.settle_owed() == 1
    assert ledger.credits.balance(1) == 5
    assert ledger.credits.audit() == ()


def refuse_to_write(_: Database) -> None:
    raise DatabaseFailed("disk full")


def test_closing_gives_back_what_is_owed(
    database_url: str, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings) as state:
        state.keys.create("web", credits=1)
        hold = state.credits.hold(1, "r")
        state.credits.capture(hold)
        state.credits.owed.add(hold)
    with open_state(settings) as state:
        assert state.credits.balance(1) == 1


@pytest.fixture
def on_server(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> Iterator[tuple[State, PostgreSQL]]:
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"owed_{threading.get_native_id()}_{request.node.name[:20]}".lower()
    server.run(f"CREATE DATABASE {name}")
    with open_state(make_settings(database_url=server.url(name))) as state:
        state.keys.create("web", credits=5)
        yield state, server
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


def cut_connections(server: PostgreSQL) -> None:
    """As a restart of the server does."""
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'owed%'")


def test_a_server_that_restarts_between_two_steps_is_not_noticed(
    on_server: tuple[State, PostgreSQL],
) -> None:
    state, server = on_server
    hold = state.credits.hold(1, "r")
    cut_connections(server)
    state.credits.capture(hold)
    cut_connections(server)
    assert state.credits.balance(1) == 4


@pytest.mark.parametrize("step", ["hold", "capture"])
def test_an_answer_lost_after_the_commit_costs_nothing(
    on_server: tuple[State, PostgreSQL], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server commits, and the connection ends before it can say so."""
    state, _ = on_server
    hold = Hold(1, "r") if step == "hold" else state.credits.hold(1, "r")
    steps: dict[str, Callable[[], object]] = {
        "hold": lambda: state.credits.hold(1, "r"),
        "capture": lambda: state.credits.capture(hold),
    }
    with monkeypatch.context() as patched:
        patched.setattr("sqlalchemy.engine.default.DefaultDialect.do_commit", commit_and_lose)
        with pytest.raises(DatabaseFailed) as failure:
            steps[step]()
    assert failure.value.is_connection_lost
    assert state.credits.balance(1) == 4
    if step == "capture":
        state.credits.owed.add(hold)
    assert state.credits.settle_owed() == 1
    assert state.credits.balance(1) == 5
    assert state.credits.audit() == ()


def commit_and_lose(_: object, connection: object) -> None:
    import psycopg

    connection.commit()  # type: ignore[attr-defined]
    raise psycopg.OperationalError("the connection is lost")
