"""Connections to PostgreSQL: they are kept, and one that no longer works is noticed before use."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.databases import PostgreSQL
from tests.service.state.conftest import MakeSettings
from tests.service.state.connections import opened_connections, read_at_once
from upscaled.state import DatabaseFailed, State, engines, open_state
from upscaled.state.engines import CONNECTIONS


@pytest.fixture
def state(server_url: str, make_settings: MakeSettings) -> Iterator[State]:
    with open_state(make_settings(database_url=server_url)) as opened:
        yield opened


def test_a_burst_leaves_its_connections_open_for_the_next(state: State) -> None:
    read_at_once(state, CONNECTIONS)
    with opened_connections() as opened:
        read_at_once(state, CONNECTIONS)
    assert opened == []


def test_connections_that_the_server_has_closed_are_replaced_before_use(
    state: State, postgresql: PostgreSQL, server_url: str
) -> None:
    """As after its restart: none of the next requests fails, however soon it comes."""
    read_at_once(state, 4)
    postgresql.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        f" WHERE datname = '{sa.make_url(server_url).database}'"
    )
    for _ in range(5):
        read_at_once(state, 4)


def test_a_connection_that_was_not_used_for_a_while_is_tested_first(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network may have dropped it without a word."""
    tested: list[object] = []

    def note(connection: object, _timeout_s: int) -> bool:
        tested.append(connection)
        return True

    read_at_once(state, 1)
    monkeypatch.setattr(engines, "_ping", note)
    monkeypatch.setattr(engines, "_TRUSTED_S", 1000)
    read_at_once(state, 1)
    assert tested == []
    monkeypatch.setattr(engines, "_TRUSTED_S", 0)
    read_at_once(state, 1)
    assert len(tested) == 1


def test_a_connection_that_was_tested_works_as_before(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_TRUSTED_S", 0)
    with opened_connections() as opened:
        for _ in range(3):
            read_at_once(state, 1)
    assert len(opened) <= 1


def test_a_server_that_is_stopped_is_a_failure_and_no_wait_without_end(
    make_settings: MakeSettings,
    postgresql: PostgreSQL,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its machine acknowledges what it is sent, and it keeps its connections open."""
    settings = make_settings(database_url=server_url, database_timeout_s=1)
    with open_state(settings) as state:
        read_at_once(state, 2)
        monkeypatch.setattr(engines, "_TRUSTED_S", 0)
        with (
            postgresql.frozen(),
            pytest.raises(DatabaseFailed),
            state.database.read() as connection,
        ):
            connection.execute(sa.text("SELECT 1"))
        read_at_once(state, 2)
