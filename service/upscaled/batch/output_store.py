"""Output store: each path belongs to one source, and foreign files are not replaced."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath
from typing import Final, Self

from upscaled.batch.files import (
    CannotWrite,
    OutputFull,
    drop_part,
    part_of,
    rename_part,
    write_part,
)
from upscaled.batch.journal import Journal, Phase, Record, Row
from upscaled.errors import InvalidParameter

ROOT: Final = Path("/")

MAX_NAME_BYTES: Final = 255
"""The longest file name that ext4, XFS, Btrfs, APFS and NTFS take."""
_DIGEST_DIGITS: Final = 10
_MAX_FURTHER_BYTES: Final = 3
"""Of a character in UTF-8, behind its first (RFC 3629, 3); other encodings may have more."""


@dataclass(frozen=True, slots=True)
class ReservedPath:
    """Result path that is reserved for one source, by its content and its settings.

    path: below the root of the store. target: the same as a whole path.
    """

    path: PurePath
    target: Path
    source_sha256: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class ExistingResult:
    """Result that exists; `record` is None while another thread makes it for the same source."""

    target: Path
    record: Record | None


class OutputStore:
    """Store of the results below one folder, as their journal records them.

    root: the output folder; None: results lie beside their sources. is_overwriting: whether what
    was not made by this program, or was changed since, may be replaced.
    """

    def __init__(self, root: Path | None, journal: Journal, *, is_overwriting: bool) -> None:
        self._root = ROOT if root is None else Path(os.path.abspath(root))
        self._is_beside = root is None
        self._journal = journal
        self._is_overwriting = is_overwriting

    def __enter__(self) -> Self:
        """Recover what a killed run left: see `upscaled.batch.journal`.

        A result that cannot be given its name now is made again, or refused, when its source comes.
        """
        for row in self._journal.interrupted():
            target = self._root / row.path
            part = self._part(target)
            if row.phase is Phase.WRITTEN and part.exists():
                with suppress(CannotWrite, OutputFull):
                    rename_part(target, part)
            drop_part(part)
            self._journal.release(row.path)
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: each reservation was committed or released."""

    def folder_of(self, source: Path, folder: PurePath) -> PurePath:
        """Return the folder of a source's result, below the root; `folder`: of its `Source`."""
        return source.parent.relative_to(ROOT) if self._is_beside else folder

    def holds(self, path: Path) -> bool:
        """Return whether a file is a result that lies here."""
        if not path.is_relative_to(self._root):
            return False
        row = self._journal.find(path.relative_to(self._root))
        return row is not None and row.record is not None

    def reserve(
        self, source: Path, source_sha256: bytes, fingerprint: bytes, paths: Iterator[PurePath]
    ) -> ReservedPath | ExistingResult:
        """Reserve the first of `paths` below the root that is free for the result of `source`.

        Raises:
            InvalidParameter: a file is there that this program did not make, or not like that.
        """
        with self._journal.lock:
            for path in paths:
                target = self._root / path
                row = self._journal.find(path)
                if row is None or _is_free_for(row, source, source_sha256, fingerprint):
                    if existing := self._find_existing(target, row, source_sha256, fingerprint):
                        return existing
                    self._journal.reserve(path, source)
                    return ReservedPath(path, target, source_sha256, fingerprint)
        raise AssertionError("names never end")

    def find_identical(
        self, source_sha256: bytes, fingerprint: bytes
    ) -> tuple[Record, bytes] | None:
        """Find a result of the same content by the same settings that is still as it was made."""
        for row in self._journal.find_identical(source_sha256, fingerprint):
            target = self._root / row.path
            if row.record and is_intact(target, row.record):
                return row.record, target.read_bytes()
        return None

    def write(self, reservation: ReservedPath, data: bytes) -> int:
        """Write the result beside its reserved path, the first step of committing it.

        Returns:
            its modification time, in ns.

        Raises:
            CannotWrite, OutputFull: see `write_part`.
        """
        return write_part(reservation.target, self._part(reservation.target), data)

    def commit(self, reservation: ReservedPath, record: Record) -> None:
        """Commit the result: from here on it is complete and recorded, even after a kill.

        Raises:
            CannotWrite, OutputFull: the path is as it was before.
        """
        before = self._journal.find(reservation.path)
        self._journal.record(reservation.path, record)
        try:
            rename_part(reservation.target, self._part(reservation.target))
        except (CannotWrite, OutputFull):
            if before is not None and before.record is not None:
                self._journal.record(reservation.path, before.record)
            raise
        self._journal.commit(reservation.path)

    def release(self, reservation: ReservedPath) -> None:
        """Give up a reservation, and leave nothing of it."""
        drop_part(self._part(reservation.target))
        self._journal.release(reservation.path)

    def _part(self, target: Path) -> Path:
        """Name the unfinished file; without a journal, process ids keep runs apart."""
        part = part_of(target)
        return part if self._journal.is_kept else part.with_suffix(f".{os.getpid()}.part")

    def _find_existing(
        self, target: Path, row: Row | None, source_sha256: bytes, fingerprint: bytes
    ) -> ExistingResult | None:
        """Return what is there already, if that is the result that is wanted."""
        if row is not None and row.phase is not Phase.COMMITTED:
            return ExistingResult(target, None)
        record = row.record if row is not None else None
        if record is None:
            is_ours = False if os.path.lexists(target) else None
        else:
            is_ours = is_intact(target, record)
        if is_ours is False and not self._is_overwriting:
            raise InvalidParameter(
                f"{target} is there and was not made by this command, or was changed since; "
                "--overwrite replaces it"
            )
        if is_ours and _is_of(record, source_sha256, fingerprint):
            return ExistingResult(target, record)
        return None


def is_intact(path: Path, record: Record) -> bool | None:
    """Return whether a result is what was written, None where it is gone.

    It is read only where its modification time differs.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != record.size_bytes:
            return False
        if status.st_mtime_ns == record.mtime_ns:
            return True
        return hashlib.sha256(path.read_bytes()).digest() == record.sha256
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_free_for(row: Row, source: Path, source_sha256: bytes, fingerprint: bytes) -> bool:
    if row.source == source:
        return True
    return row.phase is Phase.COMMITTED and _is_of(row.record, source_sha256, fingerprint)


def _is_of(record: Record | None, source_sha256: bytes, fingerprint: bytes) -> bool:
    return record is not None and (
        (record.source_sha256, record.fingerprint) == (source_sha256, fingerprint)
    )


def candidate_names(source_name: str, scale: int, ending: str) -> Iterator[str]:
    """Return the result's name, and those it gets where that is another source's: without end.

    a.png at x4: `a-x4.jpg`, `a.png-x4.jpg`, `a.png-2-x4.jpg`, `a.png-3-x4.jpg` ... A name that
    would be longer than `MAX_NAME_BYTES` is cut, and a digest of the whole keeps it apart.
    """
    suffix = f"-x{scale}.{ending}"
    return (_shorten(stem, suffix) + suffix for stem in _stems(source_name))


def _stems(source_name: str) -> Iterator[str]:
    stem = PurePath(source_name).stem
    yield stem
    if stem != source_name:
        yield source_name
    yield from (f"{source_name}-{number}" for number in count(2))


def _shorten(stem: str, suffix: str) -> str:
    """Cut the stem at a whole character where it and the suffix are too long for a name."""
    left_bytes = MAX_NAME_BYTES - len(os.fsencode(suffix))
    name = os.fsencode(stem)
    if len(name) <= left_bytes:
        return stem
    digest = "~" + hashlib.sha256(name).hexdigest()[:_DIGEST_DIGITS]
    kept_bytes = left_bytes - len(digest)
    for _ in range(_MAX_FURTHER_BYTES):
        if name[kept_bytes] & 0xC0 == 0x80:  # a UTF-8 character continues here
            kept_bytes -= 1
    return os.fsdecode(name[:kept_bytes]) + digest
