"""Clocks of the stored state, and the age of timestamps although a clock may be set.

A clock that is years ahead for a minute makes every row older than it is ever kept. Results are
safe from that by `StampClock`; rows are dated by several processes and the database, and are kept
by waiting (`SteadyClocks`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from upscaled.logs import event
from upscaled.state.database import CLOCK_STEP_S, Database, read_time_s

_SMALLEST_JUMP_S: Final = 1.0
"""NTP slews a clock by at most 500 parts in a million: 30 ms between two looks a minute apart."""

_MOST_JUMPS: Final = 64
"""Bounds the memory of a process whose clock is set again and again; the oldest is dropped."""
SMALLEST_STEP_S: Final = 600.0
"""Setting a clock forward by less ages nothing much: all is kept for an hour at least."""
SETTLE_S: Final = 3600.0
"""An error is mostly corrected within minutes, by NTP or by hand; what is right stays that long."""

_log: Final = logging.getLogger(__name__)


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


class SteadyClocks:
    """Watch the machine's clock and the database's, by which rows are dated."""

    def __init__(self, database: Database, clocks: Clocks) -> None:
        """Note both clocks, or raise DatabaseFailed."""
        self._database = database
        self._wall = clocks.wall
        self._boot = clocks.boot
        self._lock = threading.Lock()
        self._offsets_s: tuple[float, ...] = (math.inf, math.inf)
        self._settled_at_s = -math.inf
        self.are_settled()

    def are_settled(self) -> bool:
        """Note both clocks, and return whether rows may be removed by their age.

        Not for `SETTLE_S` after one of them was set forward, which is logged. To be called more
        often than that; DatabaseFailed where its clock cannot be read.
        """
        clocks_s = (self._wall(), self._read_database_s())
        boot_s = self._boot()
        with self._lock:
            before_s = self._offsets_s
            self._offsets_s = tuple(now_s - boot_s for now_s in clocks_s)
            steps_s = [now - before for now, before in zip(self._offsets_s, before_s, strict=True)]
            if max(steps_s) >= SMALLEST_STEP_S:
                self._settled_at_s = boot_s + SETTLE_S
                fields = event("clock_set_forward", seconds=round(max(steps_s)))
                _log.warning("a clock was set forward: nothing old is removed yet", extra=fields)
            return boot_s >= self._settled_at_s

    def _read_database_s(self) -> float:
        with self._database.read() as connection:
            return read_time_s(connection)


class LeaseClock:
    """Decides whether leases can be judged by the database's clock, which may be set; thread-safe.

    Just after that valid ones may look over; later only those of dead processes, which renew none.
    """

    def __init__(self, database: Database, clocks: Clocks, lease_s: float) -> None:
        """Note the database's clock and `clocks.running`, or raise DatabaseFailed.

        lease_s: longest time between two renewals of a valid lease.
        """
        self._running = clocks.running
        self._lease_s = lease_s
        self._lock = threading.Lock()
        with database.read() as connection:
            self._offset_s = read_time_s(connection) - self._running()
        self._settled_at_s = -math.inf

    def is_settled(self, connection: Connection) -> bool:
        """Note the database's clock, and return whether it was not set within the last lease.

        To be called more often than that: when it was set is taken for now.
        """
        database_s, now_s = read_time_s(connection), self._running()  # which may wait
        with self._lock:
            before_s, self._offset_s = self._offset_s, database_s - now_s
            if abs(self._offset_s - before_s) > CLOCK_STEP_S:
                self._settled_at_s = now_s + self._lease_s
            return now_s >= self._settled_at_s
