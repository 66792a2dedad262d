"""Anonymous shared memory: it has no name, so nothing is left of it once no process holds it."""

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_WRITE_CHUNK_BYTES = 64 * 1024 * 1024
"""Limits one write: the kernel writes at most 2 GiB at once."""


def can_seal() -> bool:
    """Return whether this system has memory files that can be sealed against change (Linux)."""
    return hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")


def write_memory(parts: Iterable[memoryview], *, is_sealed: bool) -> int:
    """Return the descriptor of new anonymous memory that holds `parts` one behind the other.

    Sealed memory can neither be written nor resized by any process. Otherwise it is a temporary
    file without a name.

    Raises:
        OSError: no memory is left, or this process may not write so much.
    """
    if is_sealed:
        fd = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        for part in parts:
            rest = part.cast("B")
            while rest:
                rest = rest[os.write(fd, rest[:_WRITE_CHUNK_BYTES]) :]
        if is_sealed:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _seals())
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_memory(fd: int, size_bytes: int) -> Bytes:
    """Return the `size_bytes` that another process wrote by `write_memory`; `fd` stays open.

    Sealed memory is mapped, not copied; what is written to the array stays in this process. Other
    memory is copied: its writer could cut it short, and a mapping would then end this process.

    Raises:
        ValueError: it does not hold exactly so much.
        OSError: it is no memory at all.
    """
    if os.fstat(fd).st_size != size_bytes or size_bytes == 0:
        raise ValueError(f"{os.fstat(fd).st_size} bytes of memory, {size_bytes} announced")
    if _is_sealed(fd):
        return np.frombuffer(mmap.mmap(fd, size_bytes, access=mmap.ACCESS_COPY), np.uint8)
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        copied = np.fromfile(file, np.uint8, size_bytes)
    if copied.size != size_bytes:
        raise ValueError("memory was cut short")
    return copied


def _seals() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def _is_sealed(fd: int) -> bool:
    if not can_seal():
        return False
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _seals() == _seals()
    except OSError:  # a file of another kind
        return False
