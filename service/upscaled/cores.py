"""How many cores this process may use."""

import os


def count_cores() -> int:
    """Those it may run on, where the system can tell; else those of the machine."""
    return len(usable_cores())


def usable_cores() -> set[int]:
    """Their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
