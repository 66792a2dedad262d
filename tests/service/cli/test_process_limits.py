"""Limits are tested in child processes, because a raised limit cannot be lowered again."""

import platform
import resource
import signal
import subprocess
import sys

import pytest

from upscaled.cli.process_limits import SURVIVED_SIGNALS, ignore_signals

MIB = 1024 * 1024
ALLOCATING = """
import ctypes, resource, sys
from pathlib import Path

def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

if sys.argv[1] == "early":
    from upscaled.cli.process_limits import return_memory_early
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
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("soft", "hard"), [(64, 256), (256, 256)])
def test_descriptors_are_raised_to_the_hard_limit(soft: int, hard: int) -> None:
    program = (
        "import resource\n"
        "from upscaled.cli.process_limits import raise_descriptor_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    assert run(program).split() == [str(hard)] * 3


def test_signals_are_ignored_and_those_ignored_before_are_not_returned() -> None:
    before = {number: signal.getsignal(number) for number in SURVIVED_SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        assert ignore_signals() == [signal.SIGUSR1, signal.SIGUSR2]
        for number in SURVIVED_SIGNALS:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@needs_glibc
def test_large_blocks_are_returned_to_the_system_when_they_are_freed() -> None:
    assert int(run(ALLOCATING, "early")) < MIB / 2


@needs_glibc
def test_the_allocator_keeps_large_blocks_by_default() -> None:
    """Should this fail, glibc has learned it, and the setting is no longer needed."""
    assert int(run(ALLOCATING, "late")) > MIB


READING = """
import resource
from upscaled.cli.process_limits import return_memory_early

def use_five_copies():
    return [b"x" * 256_000 for _ in range(5)]

return_memory_early()
use_five_copies()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    use_five_copies()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@needs_glibc
def test_the_memory_of_what_is_read_at_once_is_used_again() -> None:
    faults_when_mapped_anew = 100 * 5 * 256_000 // resource.getpagesize()
    assert int(run(READING)) < faults_when_mapped_anew // 10
