"""Opening the state: where it fails half-way, nothing of it stays open."""

import pytest
from sqlalchemy import Connection

from tests.service.state.conftest import MakeSettings
from upscaled.state import DatabaseFailed, open_state
from upscaled.state.database import Database


def test_a_database_whose_clock_cannot_be_read_is_closed_again(
    database_url: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Database] = []
    close = Database.close

    def fail(_: Connection) -> float:
        raise DatabaseFailed("the database does not work")

    def note_close(database: Database) -> None:
        closed.append(database)
        close(database)

    monkeypatch.setattr("upscaled.state.clocks.read_time_s", fail)
    monkeypatch.setattr(Database, "close", note_close)
    with pytest.raises(DatabaseFailed):
        open_state(make_settings(database_url=database_url))
    assert len(closed) == 1
