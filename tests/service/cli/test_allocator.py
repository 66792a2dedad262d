"""What a process keeps of large blocks once they are freed, with small ones that stay between."""

import platform
import subprocess
import sys

import pytest

MIB = 1024 * 1024
PROGRAM = """
import ctypes, resource, sys
from pathlib import Path

def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if sys.argv[1] == "early":
    from upscaled.cli.allocator import return_memory_early
    return_memory_early()
bytearray(16 * 2**20)
before = rss_bytes()
staying = []
for number in range(40):
    large = [b"x" * (300_000 + 10_000 * number) for _ in range(4)]
    staying.append(b"y" * 2000)
    large += [b"x" * 2_000_000]
    staying.append(b"y" * 2000)
    del large
print(rss_bytes() - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")


def left_bytes(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_large_blocks_are_given_back_as_soon_as_they_are_freed() -> None:
    assert left_bytes("early") < MIB / 2


def test_without_being_told_the_allocator_keeps_them() -> None:
    """Should this fail, glibc has learned it, and the setting is no longer needed."""
    assert left_bytes("late") > MIB
