"""Disks that fail: small file systems, closed folders, and folders replaced by files."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.databases import unprivileged_user

AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own on `folder`; skips where mounting is not allowed."""
    options = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(options, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def closed_to_us(folder: Path) -> Iterator[None]:
    """A folder that this process may not enter, as one whose owner was changed."""
    mode, us, another = folder.stat().st_mode, os.geteuid(), unprivileged_user()
    folder.chmod(0)
    if another is not None:  # root may enter all folders
        os.seteuid(another)
    try:
        yield
    finally:
        os.seteuid(us)
        folder.chmod(mode)


@contextmanager
def replaced_by_a_file(folder: Path) -> Iterator[None]:
    """A file in the place of a folder in use; there is no moment at which neither is there.

    A service that stores results makes the folder again as soon as it is gone.
    """
    file = folder.with_name("replaced")
    file.touch()
    _exchange(file, folder)
    try:
        yield
    finally:
        _exchange(file, folder)
        file.unlink()


def _exchange(one: Path, other: Path) -> None:
    """Give two paths each other's names at once: renameat2(2), which Python does not have."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
    if libc.renameat2(*names, RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "cannot exchange", one, None, other)
