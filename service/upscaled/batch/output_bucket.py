"""Results in a bucket: each object says itself what it was made of."""

import hashlib
import json
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from upscaled.batch.bucket_source import S3Url
from upscaled.batch.files import describe_failed_write
from upscaled.batch.journal import Journal, Record
from upscaled.batch.output_store import Entry, Output, ReservedPath

if TYPE_CHECKING:
    from upscaled.state.bucket import Bucket, FoundObject

FORMAT: Final = 1
"""Version of an object's note."""


class OutputBucket(Output):
    """Bucket of results.

    An object is whole, with its record in its metadata, and is only put where the bucket holds what
    was seen there before. journal: of this machine, which only saves work: it recognises by content
    what lies where.
    """

    def __init__(self, root: S3Url, bucket: "Bucket", journal: Journal) -> None:
        self._root = root
        self._bucket = bucket
        self._journal = journal

    def locate(self, path: PurePath) -> str:
        return str(S3Url(self._root.bucket, self._key(path)))

    def holds(self, source: str) -> bool:
        """Return whether an object lies below the root with a record of its own."""
        url = S3Url.parse(source)
        if url is None or not self._root.holds(url):
            return False
        return _read_entry(self._find(url.key), source).record is not None

    def look(self, path: PurePath, source: str) -> Entry:
        return _read_entry(self._find(self._key(path)), source)

    def find_identical(
        self, source_sha256: bytes, fingerprint: bytes
    ) -> tuple[Record, bytes] | None:
        """Find a result in the journal that the bucket still holds."""
        for row in self._journal.find_identical(source_sha256, fingerprint):
            record = self.look(row.path, row.source).record
            if record is not None and record.sha256 == (row.record and row.record.sha256):
                data = self._bucket.read(self._key(row.path), record.size_bytes)
                if hashlib.sha256(data).digest() == record.sha256:
                    return record, data
        return None

    def write(self, reservation: ReservedPath, record: Record, data: bytes) -> Record:
        from upscaled.state.results import MEDIA_TYPES

        key = self._key(reservation.path)
        media_type = MEDIA_TYPES[key.rpartition(".")[2]]
        note = _write_note(record, reservation.source)
        try:
            self._bucket.put(key, data, media_type, note, replaced_e_tag=reservation.before.e_tag)
        except FileExistsError as error:
            # By a request whose answer was lost, or by a run on another machine.
            found = self.look(reservation.path, reservation.source)
            if not found.record or not found.is_of(record.source_sha256, record.fingerprint):
                raise describe_failed_write(reservation.target, error) from error
            record = found.record
        except OSError as error:
            raise describe_failed_write(reservation.target, error) from error
        with self._journal.lock:
            self._journal.reserve(reservation.path, reservation.source)
            self._journal.record(reservation.path, record)
            self._journal.commit(reservation.path)
        return record

    def _find(self, key: str) -> "FoundObject | None":
        try:
            return self._bucket.find(key)
        except OSError as error:
            url = S3Url(self._root.bucket, key)
            raise OSError(error.errno, f"{url}: {error.strerror}") from None

    def _key(self, path: PurePath) -> str:
        # Names of files may hold bytes that are no text; keys may not.
        return self._root.below(os.fsencode(path).decode(errors="backslashreplace"))


def _write_note(record: Record, source: str) -> str:
    """Describe a result in ASCII; the source's name, which may be private, only as a hash."""
    return json.dumps(
        {
            "format": FORMAT,
            "source": _hash_name(source),
            "source_sha256": record.source_sha256.hex(),
            "fingerprint": record.fingerprint.hex(),
            "sha256": record.sha256.hex(),
            "px": [record.width_px, record.height_px],
            "model": record.model,
        }
    )


def _read_entry(found: "FoundObject | None", source: str) -> Entry:
    """Read an object's note; one that is not as this program writes it is of another program."""
    if found is None:
        return Entry()
    try:
        note: dict[str, Any] = json.loads(found.note)
        width_px, height_px = note["px"]
        record = Record(
            source_sha256=bytes.fromhex(note["source_sha256"]),
            fingerprint=bytes.fromhex(note["fingerprint"]),
            sha256=bytes.fromhex(note["sha256"]),
            size_bytes=found.size_bytes,
            mtime_ns=0,
            width_px=int(width_px),
            height_px=int(height_px),
            model=str(note["model"]),
        )
        is_of_source = note["source"] == _hash_name(source)
    except (ValueError, KeyError, TypeError):
        return Entry(is_intact=False, e_tag=found.e_tag)
    return Entry(record, is_of_source, is_intact=True, e_tag=found.e_tag)


def _hash_name(source: str) -> str:
    return hashlib.sha256(os.fsencode(source)).hexdigest()
