"""A state on a clock that tests turn, on SQLite and on PostgreSQL."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.compiled_statements import shared_statements
from tests.databases import SQLITE_FILE, make_tables
from upscaled.config import Settings, load_settings
from upscaled.state import Clocks, State, open_state
from upscaled.state.schema import HOLDERS

__all__ = ["shared_statements"]

MakeSettings = Callable[..., Settings]


@dataclass
class Clock:
    """Seconds since 1970 that pass only when a test sets them."""

    now_s: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def all_of(clock: Clock) -> Clocks:
    """The three clocks, all turned by one."""
    return Clocks(wall=clock, boot=clock, running=clock)


@dataclass
class SetClock:
    """The database's clock as `DatabaseClock` reads it, and the one that is never set.

    The real clock of the database cannot be set: a test moves what is stored in its place.
    """

    now_s: float = 1_000.0
    ahead_s: float = 1_800_000_000.0

    def running(self) -> float:
        return self.now_s

    def read(self, _: object) -> float:
        return self.now_s + self.ahead_s


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """The clock of states that are opened with `Clocks(running=set_clock.running)`."""
    made = SetClock()
    monkeypatch.setattr("upscaled.state.clocks.read_time_s", made.read)
    return made


def key_with(state: State, credits: int, name: str = "web") -> int:
    """Make a key with so many credits, and return its id."""
    key = state.keys.verify(state.keys.create(name, credits=credits))
    assert key is not None
    return key.id


def lead(state: State) -> None:
    """Wait until this front end is the leader, whose sweeps remove what all front ends share.

    On PostgreSQL a thread contends for that, which a first sweep starts and does not wait for.
    """
    deadline = time.monotonic() + 60
    while not state.holder.lead():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_leases(settings: Settings) -> None:
    """On PostgreSQL, declare all front ends dead, as a leader does a minute after their end."""
    with open_state(settings) as state, state.database.write() as connection:
        connection.execute(sa.update(HOLDERS).values(seen_at_s=None))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings on SQLite in a folder of this test's own."""

    def make(**values: object) -> Settings:
        return load_settings({}, **{"data_dir": tmp_path / "data", **values})

    return make


@pytest.fixture
def state(make_settings: MakeSettings, clock: Clock) -> Iterator[State]:
    settings = make_settings()
    make_tables(settings.data_dir)
    with open_state(settings, all_of(clock)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the tables of this version, without a row; once of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("server_url"))
    make_tables(tmp_path / "data")
    return f"sqlite:///{tmp_path / 'data' / SQLITE_FILE}"


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings) -> Iterator[State]:
    """A state on each kind of database, by the machine's own clocks."""
    with open_state(make_settings(database_url=database_url)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, once of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("empty_server_url"))
    return f"sqlite:///{tmp_path}/test.sqlite3"
