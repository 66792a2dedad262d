"""Results in one folder, as its journal records them, or beside their sources."""

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final

from upscaled.batch import files
from upscaled.batch.journal import Journal, Phase, Record
from upscaled.batch.output_store import Entry, Output, ReservedPath

ROOT: Final = Path("/")


class OutputFolder(Output):
    """Folder of results; root None: results lie beside their sources."""

    def __init__(self, root: Path | None, journal: Journal) -> None:
        self._root = ROOT if root is None else Path(os.path.abspath(root))
        self._is_beside = root is None
        self._journal = journal

    def recover(self) -> None:
        """Recover what a killed run left: see `upscaled.batch.journal`.

        A result that cannot be given its name now is made again, or refused, when its source comes.
        """
        for row in self._journal.interrupted():
            target = self._root / row.path
            part = self._part(target)
            if row.phase is Phase.WRITTEN and os.path.exists(part):
                with suppress(files.CannotWrite, files.OutputFull):
                    files.rename_part(target, part)
            files.drop_part(part)
            self._journal.release(row.path)

    def locate(self, path: PurePath) -> str:
        return str(self._root / path)

    def folder_of(self, source: str, folder: PurePath) -> PurePath:
        """Return the folder of a source's result, below the root; `folder`: of its `Source`."""
        return PurePath(source).parent.relative_to(ROOT) if self._is_beside else folder

    def holds(self, source: str) -> bool:
        """Return whether a file is a result that lies here."""
        path = PurePath(source)
        if not path.is_relative_to(self._root):
            return False
        row = self._journal.find(path.relative_to(self._root))
        return row is not None and row.record is not None

    def look(self, path: PurePath, source: str) -> Entry:
        """Look at a path, and into its file only where that may have changed."""
        target, row = self._root / path, self._journal.find(path)
        if row is None or row.record is None:
            return Entry(is_intact=False if os.path.lexists(target) else None)
        return Entry(row.record, row.source == source, is_intact(target, row.record))

    def find_identical(
        self, source_sha256: bytes, fingerprint: bytes
    ) -> tuple[Record, bytes] | None:
        """Find a result in the journal that is still as it was made."""
        for row in self._journal.find_identical(source_sha256, fingerprint):
            target = self._root / row.path
            if row.record and is_intact(target, row.record):
                return row.record, target.read_bytes()
        return None

    def begin(self, reservation: ReservedPath) -> None:
        """Record that a path is reserved, for the run after a kill."""
        self._journal.reserve(reservation.path, reservation.source)

    def write(self, reservation: ReservedPath, record: Record, data: bytes) -> Record:
        """Write a file beside the reserved path, record it, and give it its name."""
        path, before = reservation.path, reservation.before.record
        target = self._root / path
        part = self._part(target)
        record = replace(record, mtime_ns=files.write_part(target, part, data))
        self._journal.record(path, record)
        try:
            files.rename_part(target, part)
        except (files.CannotWrite, files.OutputFull):
            if before is not None:
                self._journal.record(path, before)
            raise
        self._journal.commit(path)
        return record

    def release(self, reservation: ReservedPath) -> None:
        """Delete the unfinished file, and clear the journal's row."""
        files.drop_part(self._part(self._root / reservation.path))
        self._journal.release(reservation.path)

    def _part(self, target: Path) -> Path:
        """Name the unfinished file; without a journal, process ids keep runs apart."""
        part = files.part_of(target)
        return part if self._journal.is_kept else part.with_suffix(f".{os.getpid()}.part")


def is_intact(path: Path, record: Record) -> bool | None:
    """Return whether a result is what was written (read if its time differs), None if gone."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != record.size_bytes:
            return False
        if status.st_mtime_ns == record.mtime_ns:
            return True
        return hashlib.sha256(path.read_bytes()).digest() == record.sha256
    except (FileNotFoundError, NotADirectoryError):
        return None
