"""Open SQLite's file: private, with write-ahead logging, and watched for its deletion."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from upscaled.state.errors import DatabaseLost

BUSY_TIMEOUT_S: Final = 15
"""Longest a write waits for writers of other processes; each of ours takes milliseconds."""
BEGIN_OPTION: Final = "begin_statement"
"""Execution option of a connection: the statement that begins its transaction."""
_HAS_O_PATH: Final = hasattr(os, "O_PATH")  # Linux
_RESTORE: Final = "put it back, or restart the service to begin with what is there now"
_GIVE_ACCESS: Final = "give its folders and it back to the user that runs the service"


class OpenedFile:
    """Notice that the SQLite file at `path` was deleted or replaced: writes would be lost."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        # Held open, its inode's number stays the same also where a file system makes numbers up.
        # O_PATH, for closing any other descriptor of the file would drop SQLite's own locks.
        self._descriptor = os.open(self.path, os.O_PATH | os.O_CLOEXEC) if _HAS_O_PATH else None
        self._opened = os.stat(self.path)

    def check(self) -> None:
        """Raise DatabaseLost where `path` no longer leads to the file."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise DatabaseLost(f"{self.path}: was deleted while in use; {_RESTORE}") from None
        except OSError as error:
            reason = f"cannot be reached any more: {error.strerror}"
            raise DatabaseLost(f"{self.path}: {reason}; {_GIVE_ACCESS}") from None
        opened = self._opened if self._descriptor is None else os.fstat(self._descriptor)
        if not os.path.samestat(found, opened):
            raise DatabaseLost(f"{self.path}: was replaced while in use; {_RESTORE}")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make_sqlite_engine(url: URL, *, is_read_only: bool = False) -> Engine:
    """Make an engine on the file of `url`, created where it is missing unless it `is_read_only`."""
    if is_read_only:
        url = _read_only(url)
    else:
        _create_private(Path(str(url.database)))
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _prepare_sqlite)
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


def _read_only(url: URL) -> URL:
    """Return the URL that opens the file without a write.

    Without a log of writes beside it no process has the file open; a mere `mode=ro` would make one.
    """
    file = Path(str(url.database)).absolute()
    is_open = file.with_name(f"{file.name}-wal").exists()
    options = {"mode": "ro"} if is_open else {"mode": "ro", "immutable": "1"}
    return URL.create("sqlite", database=file.as_uri(), query=options | {"uri": "true"})


def _create_private(file: Path) -> None:
    """Create an empty file that only its owner may read; SQLite's side files copy its mode."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver opens no transactions of its own
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN"))
