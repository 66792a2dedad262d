"""A state on a clock that tests turn, on SQLite and on a PostgreSQL server of our own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from upscaled.config import Settings, load_settings
from upscaled.state import Clocks, State, open_state
from upscaled.state.schema import HOLDERS

OpenState = Callable[..., State]


@dataclass
class Clock:
    """Seconds since 1970 that pass only when a test sets them."""

    now_s: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def all_of(clock: Clock) -> Clocks:
    """The three clocks, all turned by one."""
    return Clocks(wall=clock, boot=clock, running=clock)


def key_with(state: State, credits: int, name: str = "web") -> int:
    """Make a key with so many credits, and return its id."""
    key = state.keys.verify(state.keys.create(name, credits=credits))
    assert key is not None
    return key.id


def end_leases(settings: Settings) -> None:
    """On PostgreSQL, declare all front ends dead, as a leader does a minute after their end."""
    with open_state(settings) as state, state.database.write() as connection:
        connection.execute(sa.update(HOLDERS).values(seen_at_s=None))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings on SQLite in a folder of this test's own."""

    def make(**values: object) -> Settings:
        return load_settings({}, **{"data_dir": tmp_path / "data", **values})

    return make


@pytest.fixture
def state(make_settings: Callable[..., Settings], clock: Clock) -> Iterator[State]:
    with open_state(make_settings(), all_of(clock)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.sqlite3"
        return
    yield request.getfixturevalue("server_url")


@pytest.fixture
def server_url(postgresql: "PostgreSQL") -> Iterator[str]:
    """An empty database on PostgreSQL."""
    name = f"test_{uuid.uuid4().hex}"
    postgresql.run(f"CREATE DATABASE {name}")
    yield postgresql.url(name)
    postgresql.run(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True)
class PostgreSQL:
    """A running server that listens on a socket in `folder` only."""

    folder: Path
    process_id: int

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes for the time of the block, as a machine that hangs does."""
        server = psutil.Process(self.process_id)
        processes = [server, *server.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def url(self, database: str) -> str:
        return f"postgresql://tester@/{database}?host={self.folder}"

    def run(self, statement: str) -> None:
        command = ["psql", "-X", "-q", "-h", str(self.folder), "-U", "tester", "-d", "postgres"]
        subprocess.run([*command, "-c", statement], check=True, capture_output=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A real server for the session; skips where there is none to start."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    missing = [name for name in ("initdb", "postgres", "psql") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no PostgreSQL here: {', '.join(missing)} not found")
    # Short, for a socket's path has a limit; and not below a folder that is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    owner = _unprivileged_user()
    if owner is not None:
        shutil.chown(folder, owner)
    data, log = folder / "data", folder / "log"
    try:
        subprocess.run(
            ["initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, user=owner, cwd=folder, env=_english(),
        )  # fmt: skip
        settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["postgres", "-D", data, *options],
                stdout=output, stderr=output, user=owner, cwd=folder, env=_english(),
            )  # fmt: skip
        try:
            started = PostgreSQL(folder, server.pid)
            _wait_until_it_answers(started, server, log)
            yield started
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def _unprivileged_user() -> int | None:
    """Return another user's id where this is root: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _wait_until_it_answers(
    server: PostgreSQL, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.run("SELECT 1")
            return
        except subprocess.CalledProcessError:
            time.sleep(0.05)
    raise AssertionError(f"PostgreSQL did not start:\n{log.read_text()}")
