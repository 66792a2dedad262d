"""Databases as the first start of an installation leaves them, and a real PostgreSQL server.

Making the tables takes longer than most tests do, so they are made once and copied. Tests of the
making itself ask for an empty database.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

if TYPE_CHECKING:
    import psycopg

SQLITE_FILE = "upscaled.sqlite3"


def make_tables(data_dir: Path) -> None:
    """Make a SQLite database of this version in a data folder, without a row, and the folder."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(data_dir / SQLITE_FILE, os.O_WRONLY | os.O_CREAT, 0o600)
    with open(file, "wb") as database:
        database.write(_tables())


@cache
def _tables() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        _open_once(data_dir=Path(folder))
        return (Path(folder) / SQLITE_FILE).read_bytes()


@pytest.fixture
def server_url(postgresql: "PostgreSQL") -> Iterator[str]:
    """A database on PostgreSQL with the tables of this version, without a row."""
    yield from postgresql.lend_with_tables()


@pytest.fixture
def empty_server_url(postgresql: "PostgreSQL") -> Iterator[str]:
    """A database on PostgreSQL without tables."""
    yield from postgresql.lend()


@dataclass(frozen=True)
class PostgreSQL:
    """A running server that listens on a socket in `folder` only."""

    folder: Path
    process_id: int
    emptied: list[str] = field(default_factory=list)
    """Databases with tables that a test has returned, and that hold no row any more."""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes for the time of the block, as a machine that hangs does."""
        server = psutil.Process(self.process_id)
        server.suspend()  # first: it makes the others
        processes = [server, *server.children()]
        for process in processes[1:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def url(self, database: str) -> str:
        return f"postgresql://tester@/{database}?host={self.folder}"

    def run(self, statement: str) -> None:
        """Run a statement on the database `postgres`."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def lend(self, options: str = "") -> Iterator[str]:
        """Make a database, give its URL, and drop it."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} {options}")
        yield self.url(name)
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def lend_with_tables(self) -> Iterator[str]:
        """Give the URL of a database with the tables of this version; empty it for the next test.

        Emptying takes a fifth of what a new copy does, which is made where a test has changed the
        tables themselves.
        """
        if self.emptied:
            name = self.emptied.pop()
        else:
            name = f"test_{uuid.uuid4().hex}"
            self.run(f"CREATE DATABASE {name} TEMPLATE {self.with_tables} {self.strategy}")
        yield self.url(name)
        if _empty(self.url(name), self.contents):
            self.emptied.append(name)
        else:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @cached_property
    def contents(self) -> "Contents":
        """What a database with the tables of this version holds."""
        import psycopg

        with psycopg.connect(self.url(self.with_tables)) as connection:
            return _read_contents(connection)

    @cached_property
    def strategy(self) -> str:
        """How to copy a database: its files, as before version 15; block by block takes thrice."""
        import psycopg

        with psycopg.connect(self.url("postgres")) as connection:
            return "STRATEGY FILE_COPY" if connection.info.server_version >= 150_000 else ""

    @cached_property
    def with_tables(self) -> str:
        """The name of a database with the tables of this version, to copy."""
        name = "with_tables"
        self.run(f"CREATE DATABASE {name}")
        with tempfile.TemporaryDirectory() as folder:
            _open_once(data_dir=Path(folder), database_url=self.url(name))
        return name


@dataclass(frozen=True)
class Contents:
    """All that a test may change in a database: its relations, their columns, and the rows."""

    columns: list[tuple[Any, ...]]
    rows: dict[str, bytes]


def _read_contents(connection: "psycopg.Connection[Any]") -> Contents:
    columns = _read_columns(connection)
    tables = {table for table, kind, *_ in columns if kind == "r"}
    return Contents(columns, {table: _read_rows(connection, table) for table in sorted(tables)})


def _read_columns(connection: "psycopg.Connection[Any]") -> list[tuple[Any, ...]]:
    """List the columns of tables, indexes and sequences, and the names of triggers and rules."""
    return connection.execute(_COLUMNS).fetchall()


_COLUMNS: Final = """
SELECT c.relname, c.relkind, a.attname, a.atttypid, a.attnotnull, c.relhastriggers, c.relhasrules
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
ORDER BY c.relname, a.attnum
"""


_END_OTHERS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def _read_rows(connection: "psycopg.Connection[Any]", table: str) -> bytes:
    with connection.cursor().copy(f"COPY {table} TO STDOUT".encode()) as copy:
        return b"".join(bytes(chunk) for chunk in copy)


def _empty(url: str, contents: Contents) -> bool:
    """Make a database hold `contents` again; False where its tables are no longer the same."""
    import psycopg

    with psycopg.connect(url) as connection:
        # Until none is left: their locks are held and their transactions may yet end well.
        while connection.execute(_END_OTHERS).rowcount:
            connection.commit()
        if _read_columns(connection) != contents.columns:
            return False
        # No foreign key is checked: what it points to is deleted with it.
        connection.execute("SET session_replication_role = replica")
        for table, rows in contents.rows.items():
            connection.execute(f"DELETE FROM {table}".encode())
            if rows:
                with connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                    copy.write(rows)
        connection.execute(
            "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)"
            " FROM pg_sequences WHERE last_value IS NOT NULL"
        )
    return True


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A real server for the session; skips where there is none to start."""
    require_postgresql()
    # Short, for a socket's path has a limit; and not below a folder that is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    owner = unprivileged_user()
    data, log = folder / "data", folder / "log"
    try:
        init_postgresql(folder, data, owner)
        with log.open("wb") as output:
            server = subprocess.Popen(
                postgresql_command(folder, data),
                stdout=output, stderr=output, user=owner, cwd=folder, env=_english(),
            )  # fmt: skip
        try:
            started = PostgreSQL(folder, server.pid)
            _wait_until_it_answers(started, server, log)
            yield started
        finally:
            server.terminate()
            server.wait(60)
    finally:
        shutil.rmtree(folder)


def require_postgresql() -> None:
    """Skip where there is no server to start."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    missing = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no PostgreSQL here: {', '.join(missing)} not found")


def init_postgresql(folder: Path, data: Path, owner: int | None) -> None:
    """Make a server's files in `folder`; its user `tester` needs no password."""
    if owner is not None:
        shutil.chown(folder, owner)
    subprocess.run(
        ["initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"],
        check=True, capture_output=True, user=owner, cwd=folder, env=_english(),
    )  # fmt: skip


def postgresql_command(folder: Path, data: Path, addresses: str = "") -> list[str]:
    """Return what runs the server, on a socket in `folder` and on `addresses`."""
    settings = (
        f"listen_addresses={addresses}",
        f"unix_socket_directories={folder}",
        "fsync=off",
        "full_page_writes=off",
        "autovacuum=off",
    )
    return ["postgres", "-D", str(data), *(part for each in settings for part in ("-c", each))]


def _open_once(**settings: object) -> None:
    from upscaled.config import load_settings
    from upscaled.state import open_state

    open_state(load_settings({}, **settings)).close()


def unprivileged_user() -> int | None:
    """Return another user's id where this is root: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _wait_until_it_answers(
    server: PostgreSQL, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.run("SELECT 1")
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError(f"PostgreSQL did not start:\n{log.read_text()}")
