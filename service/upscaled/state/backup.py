"""Online backup of the SQLite database into one file."""

import errno
import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from upscaled.state.database_url import find_sqlite_file
from upscaled.state.engines import BUSY_TIMEOUT_S
from upscaled.state.errors import DatabaseFailed, DatabaseRefused
from upscaled.state.folder_results import sync

_PAGES_PER_STEP: Final = 1024
"""4 MiB: the service can write between two steps of a large copy."""
_WITHOUT_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""How FAT, exFAT, and file systems of a network or in user space refuse a second name."""


def back_up(database_url: str, data_dir: Path, target: Path) -> int:
    """Copy the database into a new file while the service may be running, and verify the copy.

    The copy is one consistent state, of whatever schema revision. It appears under its name only
    when it is complete and on the disk, is readable by its owner alone, and needs no side files.

    Args:
        database_url: as in `UPSCALED_DATABASE_URL`; empty for the SQLite file in `data_dir`.
        target: the file to make; FileExistsError where there is one.

    Returns:
        The size of the copy in bytes.

    Raises:
        DatabaseRefused: the database is not SQLite's, or there is none yet.
        DatabaseFailed: the database cannot be read, or is damaged.
    """
    source = find_sqlite_file(database_url, data_dir)
    if source is None:
        raise DatabaseRefused("the database is PostgreSQL's: back it up with pg_dump")
    if not source.is_file():
        raise DatabaseRefused(f"{source}: there is no database yet")
    if target.exists():
        raise FileExistsError(f"{target} exists already: a backup replaces no file")
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _copy(source, unfinished)
        _publish(unfinished, target)
    except sqlite3.Error as error:
        raise DatabaseFailed(f"{source} cannot be backed up: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def _copy(source: Path, target: Path) -> None:
    """Copy page by page, starting again where another process writes meanwhile, then verify."""
    address = f"{source.absolute().as_uri()}?mode=rw"
    with (
        closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        # One read transaction: writers go on, and the copy never has to start again.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing, pages=_PAGES_PER_STEP)
        reading.rollback()
        writing.execute("PRAGMA journal_mode = DELETE")  # one file, without -wal and -shm
        problems = [row[0] for row in writing.execute("PRAGMA integrity_check(3)")]
        if problems != ["ok"]:
            raise sqlite3.DatabaseError(f"the copy is damaged: {'; '.join(problems)}")


def _publish(unfinished: Path, target: Path) -> None:
    """Give the finished file its name, unless another file has it, and wait for the disk."""
    sync(unfinished)
    sync(unfinished.parent)
    try:
        os.link(unfinished, target)  # fails where the name is in use
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        _rename(unfinished, target)
    sync(target.parent)


def _rename(unfinished: Path, target: Path) -> None:
    """Move the file to its name, which nothing may have taken since the backup began."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        os.replace(unfinished, target)
    except OSError:
        target.unlink()  # else an empty file would look like a backup
        raise
