"""What was made of which file, kept beside the results so that a kill at any moment loses nothing.

    OUT/.upscaled-journal.sqlite3     one row for each result, by its place below OUT

A row goes through phases, of which only the second is waited for until the disk has it:

    BEGUN   the place belongs to a source; an unfinished file beside it may exist
    MADE    that file is whole, and here are its facts; it only has to be given its name
    PLACED  it has its name

The next run that opens the journal recovers what a killed one left: it names what is MADE and
clears away what is BEGUN. The file is locked while a run has it open, and the kernel drops the lock
however the run ends. Names are bytes, as the file system has them.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path, PurePath
from typing import Final, Self

from upscaled.batch.outcome import BatchAborted

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
_FACTS: Final = (
    "source_sha256, fingerprint, sha256, size_bytes, mtime_ns, width_px, height_px, model"
)


class JournalUnusable(BatchAborted):
    """The journal cannot be opened, read or written, or is none; the text names it and says why."""


class JournalBusy(JournalUnusable):
    """Another run has it open."""


class Phase(IntEnum):
    PLACED = 0
    BEGUN = 1
    MADE = 2


@dataclass(frozen=True, slots=True)
class Made:
    """A result's facts. mtime_ns: of its file; `fingerprint` as of `upscaled.batch.fingerprint`."""

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
    """A result's place, whose it is, and what was last made there; None: nothing so far."""

    place: PurePath
    source: Path
    phase: Phase
    made: Made | None


class Journal:
    """A context; every method may be called from any thread.

    `lock` may be held over several calls.
    """

    def __init__(self, path: Path | None) -> None:
        """None: one that is forgotten with this process.

        Raises:
            JournalBusy: another run has it open.
            JournalUnusable: it cannot be opened, or is no journal of this format.
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
            kind = JournalBusy if is_busy else JournalUnusable
            raise kind(f"{path}: {'another run has it open' if is_busy else error}") from None
        except JournalUnusable:
            self._database.close()
            raise

    @property
    def is_kept(self) -> bool:
        """Whether another run will know what this one did."""
        return self._path is not None

    def at(self, place: PurePath) -> Row | None:
        with self.lock:
            rows = self._select("place = ?", os.fsencode(place))
            return next(rows, None)

    def alike(self, source_sha256: bytes, fingerprint: bytes) -> list[Row]:
        """Some results of the same content by the same settings, wherever they lie."""
        with self.lock:
            where = "source_sha256 = ? AND fingerprint = ? AND phase = 0 LIMIT 8"
            return list(self._select(where, source_sha256, fingerprint))

    def interrupted(self) -> list[Row]:
        """What is under way; as the journal is opened, what a killed run left."""
        with self.lock:
            return list(self._select("phase > 0"))

    def note_begun(self, place: PurePath, source: Path) -> None:
        """Give a place to a source; what was made there before stays known."""
        self._run(
            "INSERT INTO results (place, source, phase) VALUES (?, ?, ?) ON CONFLICT (place)"
            " DO UPDATE SET source = excluded.source, phase = excluded.phase",
            os.fsencode(place),
            os.fsencode(source),
            Phase.BEGUN,
        )

    def note_made(self, place: PurePath, made: Made) -> None:
        """On the disk when this returns."""
        with self._surely():
            self._run(
                f"UPDATE results SET phase = ?, ({_FACTS}) = (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
                " WHERE place = ?",
                Phase.MADE,
                made.source_sha256,
                made.fingerprint,
                made.sha256,
                made.size_bytes,
                made.mtime_ns,
                made.width_px,
                made.height_px,
                made.model,
                os.fsencode(place),
            )

    def note_placed(self, place: PurePath) -> None:
        self._run("UPDATE results SET phase = 0 WHERE place = ?", os.fsencode(place))

    def withdraw(self, place: PurePath) -> None:
        """Nothing came of it: the place is as it was before."""
        with self.lock:
            self._run("DELETE FROM results WHERE place = ? AND sha256 IS NULL", os.fsencode(place))
            self.note_placed(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._database.close()

    def _open(self) -> None:
        """Locked for this process alone, which also lets it work where memory cannot be shared."""
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

    @contextmanager
    def _surely(self) -> Iterator[None]:
        """What is written in the block is on the disk after it, not only safe from a kill."""
        with self.lock:
            self._run("PRAGMA synchronous = FULL")
            try:
                yield
            finally:
                self._run("PRAGMA synchronous = NORMAL")

    def _run(self, statement: str, *values: bytes | str | int) -> None:
        with self.lock, self._as_unusable():
            self._database.execute(statement, values)

    @contextmanager
    def _as_unusable(self) -> Iterator[None]:
        """SQLite's own errors (a full disk, an unreadable file) as `JournalUnusable`."""
        try:
            yield
        except sqlite3.Error as error:
            raise JournalUnusable(f"{self._path}: {error}") from error

    def _select(self, where: str, *values: bytes | str | int) -> Iterator[Row]:
        statement = f"SELECT place, source, phase, {_FACTS} FROM results WHERE {where}"  # noqa: S608
        with self._as_unusable():
            rows = self._database.execute(statement, values).fetchall()
        for place, source, phase, *facts in rows:
            made = Made(*facts) if facts[2] is not None else None
            yield Row(PurePath(os.fsdecode(place)), Path(os.fsdecode(source)), Phase(phase), made)
