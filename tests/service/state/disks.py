"""File systems small enough to fill up."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.databases import unprivileged_user


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
