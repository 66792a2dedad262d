"""Weights files: checked by size and SHA-256, and moved into place at once, never half written."""

import hashlib
import importlib.metadata
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from upscaled_models.errors import WeightsError
from upscaled_models.registry import ModelSpec

Content = bytes | Path
"""The content of a file: its bytes, or the file to copy."""


class FileState(StrEnum):
    """The state of one model's file."""

    OK = "ok"
    NOT_FETCHED = "not fetched"
    MISSING = "missing"
    WRONG_SIZE = "wrong size"
    WRONG_HASH = "wrong hash"
    UNREADABLE = "unreadable"
    DAMAGED_RECORD = "damaged record"

    @property
    def is_fault(self) -> bool:
        return self not in (FileState.OK, FileState.NOT_FETCHED)


def check_file(path: Path, spec: ModelSpec) -> FileState:
    """Compare the file at `path` with the size and the SHA-256 that `spec` names."""
    if path.stat().st_size != spec.size_bytes:
        return FileState.WRONG_SIZE
    return FileState.OK if hash_file(path) == spec.sha256 else FileState.WRONG_HASH


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in lower-case hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Read a file of weights; `WeightsError`: it is unreadable, or larger than any network's."""
    try:
        with open(path, "rb", opener=_open_at_once) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise WeightsError(f"{path}: is no regular file")
            size_bytes = status.st_size
            if size_bytes <= limit_bytes:
                return opened.read(limit_bytes)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    raise WeightsError(f"{path}: {size_bytes} bytes are more than any network here has")


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for a writer, where the file is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_checked(path: Path, sha256: str) -> bytes:
    """Read the file that has this SHA-256; another one raises `WeightsError`, which names it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise WeightsError(f"{path}: SHA-256 is {actual}, must be {sha256}")
    return data


def find_installed(package: str, path: str) -> Path | None:
    """Locate a package's file by its metadata, never importing its code; None if not installed."""
    try:
        return Path(str(importlib.metadata.distribution(package).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def incoming_file(target: Path, content: Content, mode: int = 0o644) -> Iterator[Path]:
    """Provide a private file beside `target` with that content, to be checked, then moved there.

    What is checked is then what is installed. The file is deleted unless it was moved.
    """
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".incoming-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    incoming = Path(name)
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, incoming)
        else:
            incoming.write_bytes(content)
        incoming.chmod(mode)
        yield incoming
    finally:
        incoming.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at `path` at once; every user may read it unless `mode` says otherwise."""
    with incoming_file(path, data, mode) as incoming:
        os.replace(incoming, path)
