"""Engines of either database: SQLite's file, private and watched, or a PostgreSQL's connections.

SQLite writes ahead into a log. How long either side waits for the other is bounded for PostgreSQL.
"""

import os
import select
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from upscaled.state.errors import DatabaseFailed

if TYPE_CHECKING:
    import psycopg

BUSY_TIMEOUT_S: Final = 15
"""Longest a write waits for writers of other processes; each of ours takes milliseconds."""
BEGIN_OPTION: Final = "begin_statement"
"""Execution option of a connection: the statement that begins its transaction."""
_HAS_O_PATH: Final = hasattr(os, "O_PATH")  # Linux
_RESTORE: Final = "put it back, or restart the service to begin with what is there now"
_GIVE_ACCESS: Final = "give its folders and it back to the user that runs the service"
CONNECTIONS: Final = 8
"""Most connections in the pool. They are opened when a front end starts and stay open: to open one
takes as long as ten statements, so a burst of requests waits less for one of these than for new
ones. One more, outside the pool, holds the lease (`lease`)."""

_TRUSTED_S: Final = 1.0
"""Time after its last use for which a connection is not tested if its socket is not readable."""

_RETURNED_AT: Final = "returned_at"
_KEEPALIVE_INTERVAL_S: Final = 5
_KEEPALIVE_COUNT: Final = 3


class OpenedFile:
    """Notice that the SQLite file at `path` was deleted or replaced: writes would be lost."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        # Held open, its inode's number stays the same also where a file system makes numbers up.
        # O_PATH, for closing any other descriptor of the file would drop SQLite's own locks.
        self._descriptor = os.open(self.path, os.O_PATH | os.O_CLOEXEC) if _HAS_O_PATH else None
        self._opened = os.stat(self.path)

    def check(self) -> None:
        """Raise DatabaseFailed where `path` no longer leads to the file."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise DatabaseFailed(f"{self.path}: was deleted while in use; {_RESTORE}") from None
        except OSError as error:
            reason = f"cannot be reached any more: {error.strerror}"
            raise DatabaseFailed(f"{self.path}: {reason}; {_GIVE_ACCESS}") from None
        opened = self._opened if self._descriptor is None else os.fstat(self._descriptor)
        if not os.path.samestat(found, opened):
            raise DatabaseFailed(f"{self.path}: was replaced while in use; {_RESTORE}")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_sqlite_engine(url: URL, file: OpenedFile, *, is_read_only: bool = False) -> Engine:
    """Make an engine whose connections are all to that file: none creates another at its path."""
    options = _read_only(file.path) if is_read_only else {"mode": "rw"}
    engine = sa.create_engine(
        url.set(database=file.path.as_uri()).update_query_dict(options | {"uri": "true"}),
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )
    sa.event.listen(engine, "connect", partial(_prepare_sqlite, file))
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def switch_to_wal(engine: Engine) -> None:
    """Switch the file to WAL for good, so that readers go on while one process writes.

    Raises:
        OperationalError: the file was busy for `BUSY_TIMEOUT_S`, or the disk does not work.
    """
    give_up_at_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Here SQLite does not wait for others by itself, whatever its timeout is. Other errors,
            # a full disk's for example, do not end by waiting.
            is_busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not is_busy or time.monotonic() > give_up_at_s:
                raise
            time.sleep(0.05)


def describe_full_disk(error: BaseException | None) -> str:
    """Return the probable cause of an error of SQLite's that hides it; empty for any other."""
    is_hidden = getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE"
    return " (its disk is probably full)" if is_hidden else ""


def _read_only(file: Path) -> dict[str, str]:
    """Return the options of SQLite's URI that open the file without a write.

    Without a log of writes beside it no process has the file open; a mere `mode=ro` would make one.
    """
    is_open = file.with_name(f"{file.name}-wal").exists()
    return {"mode": "ro"} if is_open else {"mode": "ro", "immutable": "1"}


def create_private(file: Path) -> None:
    """Create an empty file that only its owner may read; SQLite's side files copy its mode."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(
    file: OpenedFile, connection: DBAPIConnection, _record: ConnectionPoolEntry
) -> None:
    try:
        # The pool would keep a connection to another file when the right one is back at the path.
        file.check()
    except DatabaseFailed:
        connection.close()
        raise
    connection.isolation_level = None  # the driver opens no transactions of its own
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN"))


def make_server_engine(url: URL, timeout_s: int) -> Engine:
    """Make an engine on whose connections neither side waits for ever; options in the URL win."""
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=timeout_s,
        connect_args={
            name: value
            for name, value in {
                "connect_timeout": timeout_s,
                "tcp_user_timeout": timeout_s * 1000,
                "keepalives_idle": timeout_s,
                "keepalives_interval": _KEEPALIVE_INTERVAL_S,
                "keepalives_count": _KEEPALIVE_COUNT,
                # From an unencoded database (SQL_ASCII) the driver would give bytes for texts.
                "client_encoding": "UTF8",
            }.items()
            if name not in url.query
        },
    )
    sa.event.listen(engine, "checkin", _note_return)
    sa.event.listen(engine, "checkout", partial(_check_connection, engine.dialect, timeout_s))
    limits = {
        "statement_timeout": f"{timeout_s}s",
        # A client that was cut off in a transaction holds its locks until the server ends it.
        "idle_in_transaction_session_timeout": f"{timeout_s}s",
        # The server's side of the connection; on a Unix socket they mean nothing.
        "tcp_user_timeout": f"{timeout_s}s",
        "tcp_keepalives_idle": f"{timeout_s}s",
        "tcp_keepalives_interval": f"{_KEEPALIVE_INTERVAL_S}s",
        "tcp_keepalives_count": str(_KEEPALIVE_COUNT),
    }
    options = str(url.query.get("options", ""))
    settings = {name: value for name, value in limits.items() if name not in options}
    if settings:
        sa.event.listen(engine, "connect", partial(_limit_session, settings))
    return engine


def _limit_session(
    settings: Mapping[str, str], connection: DBAPIConnection, _record: ConnectionPoolEntry
) -> None:
    # Not as `options` of the connection, which poolers refuse.
    setters = ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in settings.items()
    )
    cursor = connection.cursor()
    cursor.execute(f"SELECT {setters}")
    cursor.close()
    connection.commit()


def _note_return(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info[_RETURNED_AT] = time.monotonic()


def _check_connection(
    dialect: Dialect,
    timeout_s: int,
    connection: "psycopg.Connection[Any]",
    entry: ConnectionPoolEntry,
    _proxy: PoolProxiedConnection,
) -> None:
    """Raise InvalidatePoolError for a connection that is lost: the pool then opens new ones.

    SQLAlchemy's own check queries the server each time, one more round trip for each statement.
    """
    returned_at = entry.info.get(_RETURNED_AT)
    if returned_at is None:  # it was opened just now
        return
    is_trusted = time.monotonic() - returned_at < _TRUSTED_S
    if is_trusted and not _is_readable(connection, 0):
        return
    try:
        is_alive = _ping(connection, timeout_s)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error
    if not is_alive:
        raise InvalidatePoolError(f"no answer within {timeout_s} s")


def _ping(connection: "psycopg.Connection[Any]", timeout_s: int) -> bool:
    """Send an empty query, and return whether the server answers in time.

    A server that is stopped keeps its connections open and acknowledges what it is sent, so neither
    its own limit on statements nor TCP's ends the wait for it.
    """
    from psycopg.pq import ExecStatus  # only those who have PostgreSQL have the package

    server, ends_at_s = connection.pgconn, time.monotonic() + timeout_s
    server.send_query(b"")
    server.flush()
    statuses: list[int] = []
    while True:
        while server.is_busy():
            if not _is_readable(connection, ends_at_s - time.monotonic()):
                return False
            server.consume_input()
        if (result := server.get_result()) is None:
            return statuses == [ExecStatus.EMPTY_QUERY]
        statuses.append(result.status)


def _is_readable(connection: "psycopg.Connection[Any]", within_s: float) -> bool:
    """Return whether the server sends something, or closes the connection, within that time."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(max(0, within_s * 1000)))  # below 0 it would wait without end
