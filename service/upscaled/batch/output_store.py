"""The output store: each path belongs to one source, and foreign files are not replaced."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Self

from upscaled.batch.files import (
    CannotWrite,
    OutputFull,
    drop_part,
    is_intact,
    part_of,
    rename_part,
    write_part,
)
from upscaled.batch.journal import Journal, Made, Phase, Row
from upscaled.errors import InvalidParameter

ROOT: Final = Path("/")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A result path that is reserved for one source."""

    place: PurePath
    target: Path


@dataclass(frozen=True, slots=True)
class ExistingResult:
    """A result that exists; `made` is None while another thread makes it for the same source."""

    target: Path
    made: Made | None


class OutputStore:
    """The results below one folder, as their journal records them.

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
            target = self._root / row.place
            part = self._part(target)
            if row.phase is Phase.MADE and part.exists():
                with suppress(CannotWrite, OutputFull):
                    rename_part(target, part)
            drop_part(part)
            self._journal.withdraw(row.place)
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: each reservation was committed or released."""

    def place_of(self, source: Path, place: PurePath) -> PurePath:
        """The folder of a source's result, below the root. `place`: what `Source.place` says."""
        return source.parent.relative_to(ROOT) if self._is_beside else place

    def holds(self, path: Path) -> bool:
        """Whether a file is a result that lies here."""
        if not path.is_relative_to(self._root):
            return False
        row = self._journal.at(path.relative_to(self._root))
        return row is not None and row.made is not None

    def reserve(
        self, source: Path, content: bytes, fingerprint: bytes, names: Iterator[PurePath]
    ) -> Reservation | ExistingResult:
        """Reserve a path for the result of `source`: the first of `names` that is free for it.

        Args:
            content: SHA-256 of the source.

        Raises:
            InvalidParameter: a file is there that this program did not make, or not like that.
        """
        with self._journal.lock:
            for place in names:
                target = self._root / place
                row = self._journal.at(place)
                if row is None or _is_free_for(row, source, content, fingerprint):
                    if found := self._look(target, row, content, fingerprint):
                        return found
                    self._journal.note_begun(place, source)
                    return Reservation(place, target)
        raise AssertionError("names never end")

    def find_identical(self, content: bytes, fingerprint: bytes) -> tuple[Made, bytes] | None:
        """Find a result of the same content by the same settings that is still as it was made."""
        for row in self._journal.alike(content, fingerprint):
            target = self._root / row.place
            if row.made and is_intact(target, row.made):
                return row.made, target.read_bytes()
        return None

    def write(self, reservation: Reservation, data: bytes) -> int:
        """Write the result beside its reserved path, the first step of committing it.

        Returns:
            its modification time, in ns.

        Raises:
            CannotWrite, OutputFull: see `write_part`.
        """
        return write_part(reservation.target, self._part(reservation.target), data)

    def commit(self, reservation: Reservation, made: Made) -> None:
        """Commit the result: from here on it is complete and recorded, even after a kill.

        Raises:
            CannotWrite, OutputFull: the place is as it was before.
        """
        before = self._journal.at(reservation.place)
        self._journal.note_made(reservation.place, made)
        try:
            rename_part(reservation.target, self._part(reservation.target))
        except (CannotWrite, OutputFull):
            if before is not None and before.made is not None:
                self._journal.note_made(reservation.place, before.made)
            raise
        self._journal.note_placed(reservation.place)

    def release(self, reservation: Reservation) -> None:
        drop_part(self._part(reservation.target))
        self._journal.withdraw(reservation.place)

    def _part(self, target: Path) -> Path:
        """Name the unfinished file; without a journal, process ids keep runs apart."""
        part = part_of(target)
        return part if self._journal.is_kept else part.with_suffix(f".{os.getpid()}.part")

    def _look(
        self, target: Path, row: Row | None, content: bytes, fingerprint: bytes
    ) -> ExistingResult | None:
        """What is there already, if that is the result that is wanted."""
        if row is not None and row.phase is not Phase.PLACED:
            return ExistingResult(target, None)
        if row is None or row.made is None:
            is_ours = False if os.path.lexists(target) else None
        else:
            is_ours = is_intact(target, row.made)
        if is_ours is False and not self._is_overwriting:
            raise InvalidParameter(
                f"{target} is there and was not made by this command, or was changed since; "
                "--overwrite replaces it"
            )
        if is_ours and row and row.made and _is_of(row.made, content, fingerprint):
            return ExistingResult(target, row.made)
        return None


def _is_free_for(row: Row, source: Path, content: bytes, fingerprint: bytes) -> bool:
    if row.source == source:
        return True
    is_done = row.phase is Phase.PLACED and row.made is not None
    return is_done and _is_of(row.made, content, fingerprint)


def _is_of(made: Made | None, content: bytes, fingerprint: bytes) -> bool:
    return made is not None and (made.source_sha256, made.fingerprint) == (content, fingerprint)
