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
from upscaled.state.database import CLOCK_STEP_S, Database, insert_into, read_time_s
from upscaled.state.schema import (
    AUDIT_ENTRIES,
    CLOCK_RECORD,
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

_ONLY_ROW: Final = 1

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
        self, smallest_step_s: float, *, steady_before_s: float, counts_back: bool = True
    ) -> None:
        """Count no smaller step.

        Args:
            steady_before_s: for how long it was not set before the first call; infinite where that
                does not matter.
            counts_back: count steps back as those forward.
        """
        self._smallest_step_s = smallest_step_s
        self._steady_before_s = steady_before_s
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
            if before_s is None:
                self._steady_since_s = steady_s - self._steady_before_s
            if self.step_s:
                self._steady_since_s = steady_s
            return steady_s - self._steady_since_s


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
        self._detector = StepDetector(CLOCK_STEP_S, steady_before_s=math.inf if is_new else 0.0)
        with database.read() as connection:
            self.has_run_steadily(connection, 0.0)

    def has_run_steadily(self, connection: Connection, for_s: float) -> bool:
        """Note the database's clock, and return whether it was not set for so many seconds.

        for_s: the longest time between two renewals of a valid lease. To be called more often than
            that, for whichever lease.
        """
        database_s, now_s = read_time_s(connection), self._running()  # which may wait
        return self._detector.measure_steady_s(database_s, now_s) >= for_s


class SteadyClocks:
    """Watch the machine's clock and the database's, by which rows are dated.

    How long the database's was not set is recorded in it, and goes on at a start that soon follows.
    """

    def __init__(self, database: Database, clocks: Clocks, *, is_new: bool) -> None:
        """Note both clocks, or raise DatabaseFailed.

        is_new: the database has no rows yet that either could have been set behind.
        """
        self._database = database
        self._wall = clocks.wall
        self._boot = clocks.boot
        self._database_s = self._steady_s = 0.0
        self._detectors = tuple(
            StepDetector(SMALLEST_STEP_S, steady_before_s=steady_s, counts_back=False)
            for steady_s in ((math.inf, math.inf) if is_new else self._read_steady_before_s())
        )
        self.are_settled()

    def are_settled(self) -> bool:
        """Note both clocks, and return whether rows may be removed by their age.

        Not for `SETTLE_S` after one of them was set forward, which is logged, or may have been
        before the start. To be called more often than that; DatabaseFailed where its clock cannot
        be read.
        """
        wall_s, self._database_s = self._wall(), self._read_database_s()
        boot_s = self._boot()
        machine, database = self._detectors
        machine_steady_s = machine.measure_steady_s(wall_s, boot_s)
        self._steady_s = database.measure_steady_s(self._database_s, boot_s)
        if step_s := max(machine.step_s, database.step_s):
            fields = event("clock_set_forward", seconds=round(step_s))
            _log.warning("a clock was set forward: nothing old is removed yet", extra=fields)
        return min(machine_steady_s, self._steady_s) >= SETTLE_S

    def record(self) -> None:
        """Store what `are_settled` found of the database's clock, for the next start."""
        values = {"seen_at_s": self._database_s, "steady_s": min(self._steady_s, SETTLE_S)}
        with self._database.write() as connection:
            added = insert_into(connection, CLOCK_RECORD).values(id=_ONLY_ROW, **values)
            connection.execute(
                added.on_conflict_do_update(index_elements=[CLOCK_RECORD.c.id], set_=values)
            )

    def _read_steady_before_s(self) -> tuple[float, float]:
        """Return for how long the machine's clock, and the database's, were surely not set.

        The database's is as it was recorded, if it shows little more time now: set forward by less
        it ages nothing much. The machine's is as right as that one, if it shows about the same.
        """
        with self._database.read() as connection:
            database_s, wall_s = read_time_s(connection), self._wall()
            row = connection.execute(sa.select(CLOCK_RECORD)).one_or_none()
        if row is None or abs(database_s - row.seen_at_s) >= SMALLEST_STEP_S:
            return 0.0, 0.0
        return row.steady_s if wall_s - database_s < SMALLEST_STEP_S else 0.0, row.steady_s

    def _read_database_s(self) -> float:
        with self._database.read() as connection:
            return read_time_s(connection)


def has_dated_rows(database: Database) -> bool:
    """Return whether there are rows with a lease, or such that are removed once they are old."""
    queries = (sa.select(sa.literal(1)).select_from(table).limit(1) for table in _DATED)
    with database.read() as connection:
        return any(connection.execute(query).first() is not None for query in queries)
