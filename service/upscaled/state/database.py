"""Open SQLite or PostgreSQL, and run read and write transactions on either."""

import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from upscaled.state import engines
from upscaled.state.database_url import hide_password, parse_database_url
from upscaled.state.errors import DatabaseFailed, DatabaseRefused

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

TIMEOUT_S: Final = 10
CLOCK_STEP_S: Final = 15.0
"""Tolerated step of a clock: a time that lies further ahead was stamped before it was set back.

A process that pauses between reading two clocks takes one for set. A lease of half a minute that is
renewed every 10 s has more time than that."""
NOW_S: Final = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.BigInteger)
"""Seconds since 1970 by the clock of PostgreSQL, which all front ends share."""


class Database:
    """Transactions on one database, from any thread.

    A write on SQLite begins with BEGIN IMMEDIATE: what it reads cannot change before it commits,
    and it never fails half-way with "database is locked". On PostgreSQL both kinds run at READ
    COMMITTED, and writers rely on the row locks of their UPDATE and DELETE statements.
    """

    def __init__(self, engine: Engine, file: engines.OpenedFile | None = None) -> None:
        """Use an engine; every transaction first checks that SQLite's `file` is still there."""
        self._engine = engine
        self._file = file
        # SQLite has one writer and wakes waiting ones by polling: threads queue here instead.
        self._write_lock = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection to read from.

        On PostgreSQL each statement is a transaction: at READ COMMITTED several in one would see
        no more, and BEGIN and ROLLBACK are two more round trips.

        Raises:
            DatabaseFailed: as in all methods: the database cannot be read or written, or its file
                was deleted or replaced.
        """
        with self.translating_failures():
            self.check_file()
            with self._engine.connect() as connection:
                yield _commit_each(connection) if self.is_server else connection

    @contextmanager
    def rehearse(self) -> Iterator[Connection]:
        """Run a transaction that is rolled back, whatever it changes."""
        with self.translating_failures():
            self.check_file()
            with self._engine.connect() as connection:
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run a transaction: committed at the end of the block, rolled back if it raises."""
        with self.translating_failures(), self._write_lock:
            self.check_file()
            with self._engine.connect() as connection:
                begun = connection.execution_options(**{engines.BEGIN_OPTION: "BEGIN IMMEDIATE"})
                with begun.begin():
                    yield begun

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Open a connection to a server on which each statement is a transaction."""
        with self.translating_failures(), self._engine.connect() as connection:
            yield _commit_each(connection)

    def open_connections(self) -> None:
        """Open all connections of the pool to a server, so that no request waits for that."""
        if self.is_server:
            with self.translating_failures(), ExitStack() as opened:
                for _ in range(engines.CONNECTIONS):
                    opened.enter_context(self._engine.connect())

    def connect_apart(self) -> Connection:
        """Return such a connection that is not of the pool, for the caller to close."""
        connection = _commit_each(self._engine.connect())
        connection.detach()
        return connection

    @contextmanager
    def translating_failures(self) -> Iterator[None]:
        """Turn what a database that does not work raises into DatabaseFailed.

        A violated constraint is an answer, and a wrong statement is a bug: both stay as they are.
        """
        try:
            yield
        except (exc.IntegrityError, exc.ProgrammingError, exc.DataError):
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())
            raise DatabaseFailed(
                f"the database does not work: {cause}",
                is_connection_lost=self.is_server and isinstance(error, exc.OperationalError),
            ) from error

    @property
    def is_server(self) -> bool:
        """Return whether the database is PostgreSQL, which other machines may use too."""
        return self._engine.dialect.name == "postgresql"

    def check_file(self) -> None:
        """Raise DatabaseFailed where the path no longer leads to the SQLite file that is open."""
        if self._file is not None:
            self._file.check()

    @property
    def folder(self) -> Path | None:
        """Return the folder of SQLite's file; None for a server."""
        return None if self._file is None else self._file.path.parent

    def close(self) -> None:
        self._engine.dispose()
        if self._file is not None:
            self._file.close()


def _commit_each(connection: Connection) -> Connection:
    return connection.execution_options(isolation_level="AUTOCOMMIT")


def database_time_s(connection: Connection) -> sa.ColumnElement[float]:
    """Return the clock that all front ends share, the database's: seconds since 1970."""
    if connection.dialect.name == "postgresql":
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    return (sa.func.julianday("now") - 2_440_587.5) * 86_400.0


def read_time_s(connection: Connection) -> float:
    """Read the database's clock: seconds since 1970."""
    return float(connection.execute(sa.select(database_time_s(connection))).scalar_one())


def has_come(
    connection: Connection,
    moment_s: sa.ColumnElement[float],
    longest_s: "float | sa.ColumnElement[float]",
) -> sa.ColumnElement[bool]:
    """Return the condition that a stored moment to come has come, by the database's clock.

    So it has where it is further away than it can have been when it was written: the clock has
    been set back since, and would reach it only hours later.

    Args:
        longest_s: the furthest that such a moment is ever set ahead.
    """
    now_s = database_time_s(connection)
    return sa.or_(moment_s <= now_s, moment_s > now_s + longest_s + CLOCK_STEP_S)


def insert_into(connection: Connection, table: sa.Table) -> "postgresql.Insert | sqlite.Insert":
    """Return an INSERT of the dialect in use, which alone is imported, for ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def open_database(
    database_url: str,
    data_dir: Path,
    *,
    password: str = "",
    timeout_s: int = TIMEOUT_S,
    is_read_only: bool = False,
) -> Database:
    """Connect to `database_url`, or where it is empty to SQLite in `data_dir` (which exists).

    password: of a PostgreSQL whose URL has none.
    timeout_s: longest that a server may be silent, or a transaction idle.
    is_read_only: SQLite's file, which must be there, is not written, not even by opening it.

    Raises:
        DatabaseRefused: a URL of another kind, a missing driver, or a server that is not there.
    """
    url = parse_database_url(database_url, data_dir, password)
    file = _open_file(url, is_read_only=is_read_only)
    try:
        engine = (
            engines.make_sqlite_engine(url, file, is_read_only=is_read_only)
            if file
            else engines.make_server_engine(url, timeout_s)
        )
    except ModuleNotFoundError as error:
        raise DatabaseRefused(
            f"the database driver {error.name} is missing: "
            f"{sys.executable} -m pip install -r requirements-extras.lock"
        ) from None
    try:
        if file and not is_read_only:
            engines.switch_to_wal(engine)
        with engine.connect():
            pass
    except (exc.DatabaseError, sqlite3.DatabaseError) as error:
        Database(engine, file).close()
        shown = hide_password(url.render_as_string(hide_password=False))
        cause = error.orig if isinstance(error, exc.DatabaseError) else error
        hint = engines.describe_full_disk(cause)
        raise DatabaseRefused(f"cannot open the database {shown}: {cause}{hint}") from None
    return Database(engine, file)


def _open_file(url: sa.URL, *, is_read_only: bool) -> engines.OpenedFile | None:
    """Open SQLite's file, created where it is missing unless it `is_read_only`."""
    if url.get_backend_name() != "sqlite":
        return None
    path = Path(str(url.database))
    if not is_read_only:
        engines.create_private(path)
    return engines.OpenedFile(path)


def lift_timeout(connection: Connection) -> None:
    """Let the statements of this transaction take their time: a migration, or an audit."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
