"""What was chosen on this machine, with its proof: one JSON file for each model and key.

tuning/upscaled-x4-auto-5f0c….json      the key it holds for, the choice and its proof
"""

import fcntl
import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.engine.tuning.proof import Proof

Key = Mapping[str, str | int | float | list[str]]
"""All that a choice depends on: machine, versions, model, settings. Where one differs, it is made
again."""

_log = logging.getLogger(__name__)


class Choice(BaseModel):
    """What runs, how fast it was, and why nothing else was taken.

    proof: None for float32 itself. ns_per_px: for a pixel that is kept, halo included; `float32_`:
    the same of torch in float32 in a small picture. refused: label to reason. tuned_s: how long
    the choosing took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    runtime: str
    dtype: str
    threads: int = Field(ge=1)
    window_px: int = Field(ge=1)
    batch: int = Field(ge=1)
    proof: Proof | None
    ns_per_px: float = Field(gt=0, allow_inf_nan=False)
    times_as_fast: float = Field(gt=0, allow_inf_nan=False)
    refused: dict[str, str]
    tuned_s: float = Field(ge=0, allow_inf_nan=False)

    def describe(self) -> str:
        """One line for people."""
        proof = "the measure of all others" if self.proof is None else str(self.proof)
        gain = f", {self.times_as_fast:.1f} times as fast as float32" if self.proof else ""
        return (
            f"{self.runtime} {self.dtype}, windows of {self.window_px} px, {self.batch} at a time, "
            f"on {self.threads} threads{gain}: {proof}"
        )


class _Record(BaseModel):
    """A whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: dict[str, str | int | float | list[str]]
    choice: Choice


def choice_path(folder: Path, name: str, key: Key) -> Path:
    """Where the choice for `key` lies; machines that share a folder do not share files."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / f"{name}-{digest[:16]}.json"


def read_choice(path: Path, key: Key) -> Choice | None:
    """The choice stored for `key`, or None: there is none, or it cannot be trusted (warned of)."""
    try:
        record = _Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _log.warning("%s: not readable, tuning again: %s", path, _first_line(error))
        return None
    if record.key != key:
        _log.warning("%s: is of another machine, version or model, tuning again", path)
        return None
    return record.choice


def write_choice(path: Path, key: Key, choice: Choice) -> None:
    """Store a choice; a reader sees all of it or nothing. A folder that takes none is warned of."""
    data = _Record(key=dict(key), choice=choice).model_dump_json(indent=1).encode()
    try:
        make_private_folder(path.parent)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s: cannot be stored, so the next start tunes again: %s", path, error)


def make_private_folder(folder: Path) -> None:
    """Make a folder for its owner only, whatever the umask; one of version 0.1.0 becomes so.

    Raises:
        OSError
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Alone in the folder for the block: whoever comes later waits, and then finds a choice.

    The kernel drops the lock however the process ends. A folder that takes no file is not locked.
    """
    try:
        make_private_folder(folder)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
