"""How many cores this process may use."""

import os


def count_cores() -> int:
    """Return the number of cores that this process may run on, else the machine's."""
    return len(usable_cores())


def usable_cores() -> set[int]:
    """Their numbers."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
