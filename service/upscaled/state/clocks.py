"""Clocks of the stored state, and the age of timestamps although the wall clock may be set."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SMALLEST_JUMP_S: Final = 1.0
"""NTP slews a clock by at most 500 parts in a million: 30 ms between two looks a minute apart."""

_MOST_JUMPS: Final = 64
"""Bounds the memory of a process whose clock is set again and again; the oldest is dropped."""


def read_boot_time_s() -> float:
    """Return seconds since the machine started, including sleep where the system counts it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Clocks:
    """Three clocks of the machine, each in seconds.

    wall: since 1970; it may be set. boot, running: never set; only boot goes on while the machine
    sleeps.
    """

    wall: Callable[[], float] = time.time
    boot: Callable[[], float] = read_boot_time_s
    running: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Jump:
    """The wall clock was set from `before_s` to `after_s`."""

    before_s: float
    after_s: float


class StampClock:
    """Make timestamps by the wall clock and give their age even if it is set; from any thread.

    A stamp is readable by other processes and after a restart. By comparing the clock with the boot
    clock, what it was set by is left out of the age of what this process stamped before. Of two
    moments with one stamp the later one is meant.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._lock = threading.Lock()
        self._jumps: list[_Jump] = []
        self._offset_s = clocks.wall() - clocks.boot()

    def now_s(self) -> float:
        """Return a timestamp: seconds since 1970 by the wall clock."""
        return self._observe()[0]

    def age_s(self, stamp_s: float, *, ahead_s: float = 0.0) -> float:
        """Return the age of a timestamp in seconds; below 0 if another clock must have made it.

        Args:
            ahead_s: up to so far ahead, a stamp is of a moment to come, and not of one before the
                clock was set back.
        """
        now_s, jumps = self._observe()
        end_s, elapsed_s = now_s, 0.0
        for jump in reversed(jumps):
            if jump.after_s <= stamp_s <= end_s + ahead_s:
                return elapsed_s + end_s - stamp_s
            elapsed_s += end_s - jump.after_s
            end_s = jump.before_s
        return elapsed_s + end_s - stamp_s if stamp_s <= end_s + ahead_s else now_s - stamp_s

    def _observe(self) -> tuple[float, list[_Jump]]:
        with self._lock:
            now_s = self._clocks.wall()
            offset_s = now_s - self._clocks.boot()
            jump_s = offset_s - self._offset_s
            self._offset_s = offset_s
            if abs(jump_s) > _SMALLEST_JUMP_S:
                self._jumps = [*self._jumps, _Jump(now_s - jump_s, now_s)][-_MOST_JUMPS:]
            return now_s, self._jumps
