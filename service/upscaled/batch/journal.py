"""Journal of the results of a folder, kept beside them so that a kill at any moment loses nothing.

    OUT/.upscaled-journal.sqlite3     one row for each result, by its path below OUT

    RESERVED   the path belongs to a source; an unfinished file beside it may exist
    WRITTEN    that file is whole and described by the row, on the disk; its name is temporary
    COMMITTED  the file has its final name

The next run renames what is WRITTEN and deletes what is RESERVED. The kernel drops the file's
lock however a run ends. Names are bytes, as the file system has them.
"""

import os
import sqlite3
import threading
from dataclasses import astuple, dataclass
from enum import IntEnum
from pathlib import Path, PurePath
from typing import Any, Final, Self

from upscaled.batch.files import BatchAborted

FILE_NAME: Final = ".upscaled-journal.sqlite3"
FORMAT: Final = 1

_SCHEMA: Final = """
    CREATE TABLE results (
        place BLOB PRIMARY KEY,
        source BLOB NOT NULL,
        phase INTEGER NOT NULL,
        source_sha256 BLOB, fingerprint BLOB,
        sha256 BLOB, size_bytes INTEGER, mtime_ns INTEGER,
        width_px INTEGER, height_px INTEGER, model TEXT
    ) WITHOUT ROWID;
    CREATE INDEX by_content ON results (source_sha256, fingerprint);
"""
_RECORD: Final = (
    "source_sha256, fingerprint, sha256, size_bytes, mtime_ns, width_px, height_px, model"
)


class JournalUnusable(BatchAborted):
    """The journal cannot be opened, read or written, or is none; the text names it and says why."""


class Phase(IntEnum):
    COMMITTED = 0
    RESERVED = 1
    WRITTEN = 2


@dataclass(frozen=True, slots=True)
class Record:
    """Description of a result. mtime_ns: of its file; fingerprint: of `file_job.fingerprint`."""

    source_sha256: bytes
    fingerprint: bytes
    sha256: bytes
    size_bytes: int
    mtime_ns: int
    width_px: int
    height_px: int
    model: str


@dataclass(frozen=True, slots=True)
class Row:
    """Row of one result: its path, its source, and what was last written there, if anything was."""

    path: PurePath
    source: str
    phase: Phase
    record: Record | None


class Journal:
    """Journal of one folder, a context for any thread; `lock` may be held over several calls."""

    def __init__(self, path: Path | None) -> None:
        """Open the journal in a file; None: a journal in memory alone.

        Raises:
            JournalUnusable: it cannot be opened, another run has it open, or it is no journal of
                this format.
        """
        self.lock = threading.RLock()
        self._path = path
        try:
            self._database = sqlite3.connect(
                str(path) if path else ":memory:",
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise JournalUnusable(f"{path}: {error}") from None
        try:
            self._open()
        except sqlite3.Error as error:
            self._database.close()
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            reason = "another run has it open" if is_busy else error
            raise JournalUnusable(f"{path}: {reason}") from None
        except JournalUnusable:
            self._database.close()
            raise

    @property
    def is_kept(self) -> bool:
        """Return whether another run can read what this one did."""
        return self._path is not None

    def find(self, path: PurePath) -> Row | None:
        return next(iter(self._select("place = ?", os.fsencode(path))), None)

    def find_identical(self, source_sha256: bytes, fingerprint: bytes) -> list[Row]:
        """Return some results of the same content by the same settings, at any path."""
        where = "source_sha256 = ? AND fingerprint = ? AND phase = 0 LIMIT 8"
        return self._select(where, source_sha256, fingerprint)

    def interrupted(self) -> list[Row]:
        """Return what is in flight; as the journal is opened, what a killed run left."""
        return self._select("phase > 0")

    def reserve(self, path: PurePath, source: str) -> None:
        """Reserve a path for a source; what was written there before stays known."""
        self._run(
            "INSERT INTO results (place, source, phase) VALUES (?, ?, ?) ON CONFLICT (place)"
            " DO UPDATE SET source = excluded.source, phase = excluded.phase",
            *(os.fsencode(path), os.fsencode(source), Phase.RESERVED),
        )

    def record(self, path: PurePath, record: Record) -> None:
        """Record a result that is written: safe from a power failure when this returns."""
        with self.lock:
            self._run("PRAGMA synchronous = FULL")
            try:
                self._run(
                    f"UPDATE results SET phase = ?, ({_RECORD}) = (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
                    " WHERE place = ?",
                    *(Phase.WRITTEN, *astuple(record), os.fsencode(path)),
                )
            finally:
                self._run("PRAGMA synchronous = NORMAL")

    def commit(self, path: PurePath) -> None:
        """Record that a result has its final name."""
        self._run("UPDATE results SET phase = 0 WHERE place = ?", os.fsencode(path))

    def release(self, path: PurePath) -> None:
        """Cancel a reservation: the path is as it was before."""
        with self.lock:
            self._run("DELETE FROM results WHERE place = ? AND sha256 IS NULL", os.fsencode(path))
            self.commit(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._database.close()

    def _open(self) -> None:
        """Lock it for this process alone, which also lets it work where memory is not shared."""
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN EXCLUSIVE")
        (format_number,) = run("PRAGMA user_version").fetchone()
        if not format_number and not run("SELECT name FROM sqlite_schema").fetchone():
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA user_version = {FORMAT}")
        elif format_number != FORMAT:
            run("ROLLBACK")
            raise JournalUnusable(f"{self._path}: is no journal that this version can read")
        run("COMMIT")

    def _select(self, where: str, *values: bytes) -> list[Row]:
        rows = self._run(
            f"SELECT place, source, phase, {_RECORD} FROM results WHERE {where}",  # noqa: S608
            *values,
        )
        return [
            Row(
                PurePath(os.fsdecode(path)),
                os.fsdecode(source),
                Phase(phase),
                Record(*record) if record[2] is not None else None,
            )
            for path, source, phase, *record in rows
        ]

    def _run(self, statement: str, *values: bytes | str | int) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows; `JournalUnusable` where SQLite failed."""
        with self.lock:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise JournalUnusable(f"{self._path}: {error}") from error
