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

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.logs import event
from upscaled.state.database import CLOCK_STEP_S, Database, read_time_s
from upscaled.state.schema import (
    AUDIT_ENTRIES,
    IDEMPOTENCY_KEYS,
    JOBS,
    REUSABLE_RESULTS,
    STORED_RESULTS,
    USAGE_DAYS,
    USAGE_ROWS,
)

_SMALLEST_JUMP_S: Final = 1.0
"""NTP slews a clock by at most 500 parts in a million: 30 ms between two looks a minute apart."""

_MOST_JUMPS: Final = 64
"""Bounds the memory of a process whose clock is set again and again; the oldest is dropped."""
SMALLEST_STEP_S: Final = 600.0
"""Setting a clock forward by less ages nothing much: all is kept for an hour at least."""
SETTLE_S: Final = 3600.0
"""An error is mostly corrected within minutes, by NTP or by hand; what is right stays that long."""

_DATED: Final = (
    *(JOBS, IDEMPOTENCY_KEYS, STORED_RESULTS, REUSABLE_RESULTS),
    *(USAGE_ROWS, USAGE_DAYS, AUDIT_ENTRIES),
)

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


class StepDetector:
    """Measures for how long a clock that may be set has not been; to be used from any thread.

    It is compared with one that is never set at each call of `measure_steady_s`, and taken for set
    just now where it was moved since the last one.
    """

    def __init__(
        self, smallest_step_s: float, *, starts_steady: bool, counts_back: bool = True
    ) -> None:
        """Count no smaller step.

        Args:
            starts_steady: it does not matter whether the clock was set just before the first call.
            counts_back: count steps back as those forward.
        """
        self._smallest_step_s = smallest_step_s
        self._starts_steady = starts_steady
        self._counts_back = counts_back
        self._lock = threading.Lock()
        self._offset_s: float | None = None
        self._steady_since_s = -math.inf
        self.step_s = 0.0

    def measure_steady_s(self, now_s: float, steady_s: float) -> float:
        """Note two clocks of one moment, the second never set.

        `step_s` is then what the first was moved by since the last call, 0 for no step that counts.

        Returns:
            seconds by the second clock since the first may have been set.
        """
        with self._lock:
            before_s, self._offset_s = self._offset_s, now_s - steady_s
            step_s = 0.0 if before_s is None else self._offset_s - before_s
            size_s = abs(step_s) if self._counts_back else step_s
            self.step_s = step_s if size_s >= self._smallest_step_s else 0.0
            if self.step_s or (before_s is None and not self._starts_steady):
                self._steady_since_s = steady_s
            return steady_s - self._steady_since_s

    def start_steady(self) -> None:
        """Forget what was before this moment: nothing depends on it."""
        with self._lock:
            self._steady_since_s = -math.inf


class DatabaseClock:
    """The database's clock, by which leases run out, for all that judges them; thread-safe.

    Just after it was set, or before this process can say that it was not, valid ones may look over;
    later only those of dead processes, which renew none.
    """

    def __init__(self, database: Database, clocks: Clocks, *, is_new: bool) -> None:
        """Note the database's clock, or raise DatabaseFailed.

        is_new: the database has no leases yet that it could have been set behind.
        """
        self._running = clocks.running
        self._detector = StepDetector(CLOCK_STEP_S, starts_steady=is_new)
        with database.read() as connection:
            self.has_run_steadily(connection, 0.0)

    def has_run_steadily(self, connection: Connection, for_s: float) -> bool:
        """Note the database's clock, and return whether it was not set for so many seconds.

        for_s: the longest time between two renewals of a valid lease. To be called more often than
            that, for whichever lease.
        """
        database_s, now_s = read_time_s(connection), self._running()  # which may wait
        return self._detector.measure_steady_s(database_s, now_s) >= for_s

    def note_no_lease(self) -> None:
        """Note that no valid lease was there, so that it does not matter what was before."""
        self._detector.start_steady()


class SteadyClocks:
    """Watch the machine's clock and the database's, by which rows are dated."""

    def __init__(self, database: Database, clocks: Clocks, *, is_new: bool) -> None:
        """Note both clocks, or raise DatabaseFailed.

        is_new: the database has no rows yet that either could have been set behind.
        """
        self._database = database
        self._wall = clocks.wall
        self._boot = clocks.boot
        self._detectors = tuple(
            StepDetector(SMALLEST_STEP_S, starts_steady=is_new, counts_back=False) for _ in range(2)
        )
        self.are_settled()

    def are_settled(self) -> bool:
        """Note both clocks, and return whether rows may be removed by their age.

        Not for `SETTLE_S` after one of them was set forward, which is logged, or may have been
        before the start. To be called more often than that; DatabaseFailed where its clock cannot
        be read.
        """
        clocks_s = (self._wall(), self._read_database_s())
        boot_s = self._boot()
        steady_s = min(
            detector.measure_steady_s(now_s, boot_s)
            for detector, now_s in zip(self._detectors, clocks_s, strict=True)
        )
        if step_s := max(each.step_s for each in self._detectors):
            fields = event("clock_set_forward", seconds=round(step_s))
            _log.warning("a clock was set forward: nothing old is removed yet", extra=fields)
        return steady_s >= SETTLE_S

    def _read_database_s(self) -> float:
        with self._database.read() as connection:
            return read_time_s(connection)


def has_dated_rows(database: Database) -> bool:
    """Return whether there are rows with a lease, or such that are removed once they are old."""
    queries = (sa.select(sa.literal(1)).select_from(table).limit(1) for table in _DATED)
    with database.read() as connection:
        return any(connection.execute(query).first() is not None for query in queries)
