"""Detect that a clock was set forward, so that what then looks old is not removed for good.

A clock that is years ahead for a minute makes every row older than it is ever kept. Results are
safe from that by `StampClock`; rows are dated by several processes and the database, and are kept
by waiting.
"""

import logging
import math
import threading
from typing import Final

import sqlalchemy as sa

from upscaled.logs import event
from upscaled.state.clocks import Clocks
from upscaled.state.database import Database, database_time_s

SMALLEST_STEP_S: Final = 600.0
"""Setting a clock forward by less ages nothing much: all is kept for an hour at least."""
SETTLE_S: Final = 3600.0
"""An error is mostly corrected within minutes, by NTP or by hand; what is right stays that long."""

_log: Final = logging.getLogger(__name__)


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
            return float(connection.execute(sa.select(database_time_s(connection))).scalar_one())
