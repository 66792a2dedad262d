"""The choice cache: what was measured on this machine, one JSON file for each model and key."""

import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError

from upscaled_models.accuracy import Accuracy
from upscaled_models.files import write_atomically

Key = Mapping[str, str | int | float | list[str]]
"""All that a choice depends on: machine, versions, model, settings. Where one differs, the model is
measured again."""

LOCK_WAIT_S: Final = 40.0
"""Longest wait for the lock of another process, which chooses for seconds, on a GPU for half a
minute. One that is stopped keeps its lock for ever."""

_LOOK_EVERY_S: Final = 0.1

_log = logging.getLogger(__name__)


class Measured(BaseModel, frozen=True, extra="forbid", strict=True):
    """The comparison of one candidate with another.

    ns_per_px: cost of a pixel that goes through the network. ratio: of its cost to that of
    `against`, in `pairs` pairs of runs, with the interval from low to high; None where it was
    compared with nothing. is_settled: whether the order of the two is.
    """

    name: str
    ns_per_px: float = Field(gt=0, allow_inf_nan=False)
    against: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = Field(default=0, ge=0)
    is_settled: bool = True


class Choice(BaseModel, frozen=True, extra="forbid", strict=True):
    """The candidate that runs, its speed, and the reasons against the others.

    runtime: the backend. proof: None for float32 itself. ns_per_px: cost of a pixel that goes
    through the network (a trunk pixel), on a machine without other work. times_as_fast: as float32
    by torch; None where that was not measured. refused: name to reason. tuned_s: how long the
    search took. unsettled: why it is to be measured again; empty where the order is settled.
    is_from_table: chosen from the shipped defaults, not measured here. untried: what has not been
    compared yet.
    """

    runtime: str
    dtype: str
    threads: int = Field(ge=1)
    window_px: int = Field(ge=1)
    batch: int = Field(ge=1)
    proof: Accuracy | None
    ns_per_px: float = Field(gt=0, allow_inf_nan=False)
    times_as_fast: float | None = Field(gt=0, allow_inf_nan=False)
    refused: dict[str, str]
    tuned_s: float = Field(ge=0, allow_inf_nan=False)
    unsettled: str = ""
    is_from_table: bool = False
    untried: list[str] = Field(default_factory=list)
    measured: list[Measured] = Field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        return not self.unsettled

    @property
    def label(self) -> str:
        return f"{self.runtime} {self.dtype}"

    def describe(self) -> str:
        text = (
            f"{self.label}, windows of {self.window_px} px, {self.batch} at a time, "
            f"on {self.threads} threads"
        )
        if self.proof and self.times_as_fast is not None:
            text += f", {self.times_as_fast:.1f} times as fast as float32"
        text += f": {self.proof or 'the reference for all others'}"
        return f"{text}; not settled: {self.unsettled}" if self.unsettled else text


class CacheRecord(BaseModel, frozen=True, extra="forbid"):
    """The content of a cache file; a subclass adds a field for what was measured."""

    key: dict[str, str | int | float | list[str]]


class ChoiceRecord(CacheRecord):
    choice: Choice


R = TypeVar("R", bound=CacheRecord)


@dataclass(frozen=True, slots=True)
class CacheFile(Generic[R]):
    """A file of the cache, which holds for one key. kind: the record that it holds."""

    path: Path
    key: Key
    kind: type[R]

    @classmethod
    def of(cls, folder: Path, name: str, key: Key, kind: type[R]) -> "CacheFile[R]":
        """Name the file of a key; machines that share a folder do not share files."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return cls(folder / f"{name}-{digest[:16]}.json", key, kind)

    def read(self) -> R | None:
        """Read the record; None where there is none, or none that can be used (with a warning)."""
        try:
            record = self.kind.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = str(error).partition("\n")[0]
            _log.warning("%s: not readable, measuring again: %s", self.path, reason)
            return None
        if record.key != self.key:
            _log.warning("%s: of another machine, version or model, measuring again", self.path)
            return None
        return record

    def write(self, **measured: BaseModel) -> None:
        """Store a record, `measured` beside its key; warn where the folder cannot be written to."""
        data = self.kind(key=dict(self.key), **measured).model_dump_json(indent=1).encode()
        try:
            make_private_folder(self.path.parent)
            write_atomically(self.path, data, mode=0o600)
        except OSError as error:
            _log.warning(
                "%s: cannot be stored, so the next start measures again: %s", self.path, error
            )


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can read, or make one of version 0.1.0 private."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)


@contextmanager
def lock_folder(folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the folder's lock for the block: processes that start later wait, and find a choice.

    The block runs without it where the folder cannot be written to, or, after a warning, where
    another process keeps it for `wait_s`: at worst both measure.
    """
    give_up_at_s = time.monotonic() + wait_s
    while (claim := Claim.acquire(folder, ".lock")) is None:
        if time.monotonic() > give_up_at_s:
            _log.warning("%s: another process has kept its lock for %.0f s", folder, wait_s)
            break
        time.sleep(_LOOK_EVERY_S)
    try:
        yield
    finally:
        if claim is not None:
            claim.release()


@dataclass(frozen=True, slots=True)
class Claim:
    """A lock of a folder, which processes share; the kernel drops it however the process ends."""

    descriptor: int | None

    @classmethod
    def acquire(cls, folder: Path, name: str = ".measuring") -> "Claim | None":
        """Acquire the lock of the one process that measures, or another; None where it is held.

        In a folder that cannot be written to, or on a disk without locks, no lock is needed.
        """
        descriptor = _open_lock(folder, name)
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    return None
                descriptor = None  # a disk without locks
        return cls(descriptor)

    def release(self) -> None:
        """Release the lock; call it once."""
        if self.descriptor is not None:
            os.close(self.descriptor)


def _open_lock(folder: Path, name: str) -> int | None:
    """Open a folder's lock file; None where the folder cannot be written to."""
    try:
        make_private_folder(folder)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
