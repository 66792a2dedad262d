"""Output store: each path belongs to one source, and foreign files are not replaced."""

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import PurePath
from typing import Final, Self

from upscaled.batch.journal import JournalUnusable, Record
from upscaled.errors import InvalidParameter

MAX_NAME_BYTES: Final = 255
"""The longest file name that ext4, XFS, Btrfs, APFS and NTFS allow."""
_DIGEST_DIGITS: Final = 10
_MAX_FURTHER_BYTES: Final = 3
"""Most bytes of a UTF-8 character behind its first (RFC 3629, 3); other encodings may have more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of an output at one path.

    record: of the result that this program made there last, if any; is_of_source: from the source
    in question. is_intact: whether just that result is there, None where nothing is. e_tag: of the
    object, in a bucket.
    """

    record: Record | None = None
    is_of_source: bool = False
    is_intact: bool | None = None
    e_tag: str = ""

    def is_of(self, source_sha256: bytes, fingerprint: bytes) -> bool:
        """Return whether the result was made of this content by these settings."""
        return self.record is not None and (
            (self.record.source_sha256, self.record.fingerprint) == (source_sha256, fingerprint)
        )


@dataclass(frozen=True, slots=True)
class ReservedPath:
    """Result path below the output's root, reserved for one source by content and settings.

    target: the same as a whole name. before: what is there.
    """

    path: PurePath
    target: str
    source: str
    source_sha256: bytes
    fingerprint: bytes
    before: Entry


@dataclass(frozen=True, slots=True)
class ExistingResult:
    """Result that exists; `record` is None while another thread makes it for the same source."""

    target: str
    record: Record | None


class Output(ABC):
    """Folder, bucket or stream to which any number of threads write results.

    Sources and results go by their whole names. Methods raise `JournalUnusable` where a journal
    fails, and an `OSError` where what is there cannot be read. Those that are not abstract are for
    an output that holds nothing, and that nothing changes before a result is there.
    """

    def recover(self) -> None:  # noqa: B027
        """Clear away what a killed run left, before anything else."""

    @abstractmethod
    def locate(self, path: PurePath) -> str:
        """Return the whole name of a path below the root."""

    def folder_of(self, source: str, folder: PurePath) -> PurePath:
        """Return the folder of a source's result, below the root; `folder`: of its `Source`."""
        return folder

    def holds(self, source: str) -> bool:
        """Return whether a source is itself a result that lies here."""
        return False

    def look(self, path: PurePath, source: str) -> Entry:
        """Return what is at a path, for a source that may become its own."""
        return Entry()

    def find_identical(
        self, source_sha256: bytes, fingerprint: bytes
    ) -> tuple[Record, bytes] | None:
        """Find a result of the same content by the same settings that is still as it was made."""
        return None

    def begin(self, reservation: ReservedPath) -> None:  # noqa: B027
        """Record that a path is reserved."""

    @abstractmethod
    def write(self, reservation: ReservedPath, record: Record, data: bytes) -> Record:
        """Write the result whole and recorded, also after a kill, and return its final record.

        CannotWrite, OutputFull: the path is as it was before.
        """

    def release(self, reservation: ReservedPath) -> None:  # noqa: B027
        """Leave nothing of a result that was not written."""


class OutputStore:
    """Store of the results in one output: who may write where.

    is_overwriting: whether what was not made by this program, or was changed since, may be
    replaced. is_dry: leave the output as it is: reservations hold within this process alone.
    """

    def __init__(self, output: Output, *, is_overwriting: bool, is_dry: bool = False) -> None:
        self.output = output
        self._is_overwriting = is_overwriting
        self._is_dry = is_dry
        self._changed = threading.Condition()
        self._sources: dict[PurePath, str] = {}
        """By path: the source that it is reserved for."""
        self._looked_at: set[PurePath] = set()
        """Paths of which a thread finds out whose they are; the others wait for that."""

    def __enter__(self) -> Self:
        if not self._is_dry:
            self.output.recover()
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: each reservation was committed or released."""

    def reserve(
        self, source: str, source_sha256: bytes, fingerprint: bytes, paths: Iterator[PurePath]
    ) -> ReservedPath | ExistingResult:
        """Reserve the first of `paths` below the root that is free for the result of `source`.

        A file that this program did not make, or not like that, raises `InvalidParameter`.
        """
        content = source_sha256, fingerprint
        for path in paths:
            target = self.output.locate(path)
            with self._changed:
                while path in self._looked_at:
                    self._changed.wait()
                reserved_for = self._sources.get(path)
                if reserved_for is None:
                    self._looked_at.add(path)
            if reserved_for == source:
                return ExistingResult(target, None)
            if reserved_for is None and (found := self._decide(path, target, source, content)):
                return found
        raise AssertionError("names never end")

    def commit(self, reservation: ReservedPath, record: Record, data: bytes) -> Record:
        """Commit the result: from here on it is complete and recorded, even after a kill.

        CannotWrite, OutputFull: the path is as it was before, and still reserved.
        """
        record = self.output.write(reservation, record, data)
        self._forget(reservation.path)
        return record

    def release(self, reservation: ReservedPath) -> None:
        """Cancel a reservation, and leave nothing of it."""
        with suppress(JournalUnusable):  # the next run clears the row away
            self.output.release(reservation)
        self._forget(reservation.path)

    def _forget(self, path: PurePath) -> None:
        with self._changed:
            self._sources.pop(path, None)

    def _decide(
        self, path: PurePath, target: str, source: str, content: tuple[bytes, bytes]
    ) -> ReservedPath | ExistingResult | None:
        """Look at a path in `_looked_at`, keep it if it is reserved, and let the others go on."""
        found = None
        try:
            found = self._look(path, target, source, content)
            return found
        finally:
            with self._changed:
                self._looked_at.discard(path)
                if isinstance(found, ReservedPath):
                    self._sources[path] = source
                self._changed.notify_all()

    def _look(
        self, path: PurePath, target: str, source: str, content: tuple[bytes, bytes]
    ) -> ReservedPath | ExistingResult | None:
        """Decide by what is at a path; None: it is another source's."""
        entry = self.output.look(path, source)
        if entry.record and not (entry.is_of_source or entry.is_of(*content)):
            return None
        if entry.is_intact is False and not self._is_overwriting:
            raise InvalidParameter(
                f"{target} is there and was not made by this command, or was changed since; "
                "--overwrite replaces it"
            )
        if entry.is_intact and entry.is_of(*content):
            return ExistingResult(target, entry.record)
        reservation = ReservedPath(path, target, source, *content, entry)
        if not self._is_dry:
            self.output.begin(reservation)
        return reservation


def candidate_names(source_name: str, scale: int, ending: str, suffix: str = "") -> Iterator[str]:
    """Return the result's name, and those it gets where that is another source's: without end.

    a.png at x4: `a-x4.jpg`, `a.png-x4.jpg`, `a.png-2-x4.jpg` ... (or `suffix` for "-x4"). A name
    over `MAX_NAME_BYTES` is cut, and a digest of the whole keeps it apart.
    """
    end = f"{suffix or f'-x{scale}'}.{ending}"
    return (_shorten(stem, end) + end for stem in _stems(source_name))


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
