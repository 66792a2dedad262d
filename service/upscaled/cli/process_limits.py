"""Change what the system does to this process: ending signals, open files, the allocator."""

import ctypes
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

SURVIVED_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Sent by log rotation, by a closed terminal or by habit. By default each ends a process."""

_OPEN_MAX: Final = 10_240
"""OPEN_MAX of macOS, which allows no more open files where it reports no limit."""

# Parameters of mallopt, from <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 264 * 1024
"""Blocks from this size on are mapped by themselves, and so unmapped when they are freed. What
uvloop reads at once is smaller: to map it, and its copies, was half of the time of a body."""
_LEFT_BYTES: Final = 2 * 1024 * 1024
"""At most so much is kept at the end of the heap; a read and its copies take 1.3 MB."""


def ignore_signals(numbers: Sequence[signal.Signals] = SURVIVED_SIGNALS) -> list[signal.Signals]:
    """Ignore signals from now on; return those that were not ignored before, as by `nohup`."""
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, signal.SIG_IGN)
    return handled


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files to its hard limit, and return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, min(hard, _OPEN_MAX) if hard != resource.RLIM_INFINITY else _OPEN_MAX):
        if soft != resource.RLIM_INFINITY and soft != wanted:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def return_memory_early() -> None:
    """Have glibc return large blocks to the system when they are freed, and use one heap.

    By itself glibc cuts blocks up to the largest that was freed out of a heap, which then has holes
    and never shrinks, and each thread may have a heap: 107 bodies of up to 8 MB left 19 MB behind.

    To be called before there are threads. Allocators other than glibc's are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGE_BYTES),
        (_M_TRIM_THRESHOLD, _LEFT_BYTES),
    ):
        mallopt(parameter, value)
