"""A bare Debian in a folder, for what must be tried where nothing else is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("python3", "python3-venv", "openssh-client")
"""Beside what every Debian has: Python, and what every machine has that one can log in to.

TEST_BASE_ROOT may name a folder with all that: it saves making one.
"""


def require_programs(*programs: str) -> None:
    """Skip the test where it cannot run: without these programs, or without root's rights.

    CI must have them: there it fails.
    """
    missing = [name for name in programs if shutil.which(name) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else ""
    if os.geteuid() != 0:
        reason = "only root can change into another system's files and mount folders there"
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"CI runs this, but: {reason}")
    if reason:
        pytest.skip(reason)


def make_debian_root(folder: Path) -> None:
    """Install Debian's smallest system and `PACKAGES` into `folder`."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    subprocess.run([*command, "bookworm", str(folder)], check=True, stdout=subprocess.DEVNULL)
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(folder / leftover)
