"""Limit the rate of each API key: in one process, or over all front ends of a PostgreSQL."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import sqlalchemy as sa

from upscaled.errors import RateLimitExceeded
from upscaled.state.database import Database
from upscaled.state.errors import InvalidValue

SMALLEST_PER_S: Final = 0.001
LARGEST_PER_S: Final = 1_000_000.0
LARGEST_BURST: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
_SMALLEST_PRUNE: Final = 1024


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A key's own rate. None: what the settings say.

    per_s: requests a second in the long run, 0.001 to 1,000,000. burst: requests at once, 1 to
    1,000,000.
    """

    per_s: float | None = None
    burst: int | None = None

    def check(self) -> None:
        """Raise InvalidValue for a rate that no key may have."""
        if self.per_s is not None and not SMALLEST_PER_S <= self.per_s <= LARGEST_PER_S:
            raise InvalidValue(
                f"a rate of {self.per_s:g} per second: must be {SMALLEST_PER_S:g} to "
                f"{LARGEST_PER_S:.0f}"
            )
        if self.burst is not None and not 1 <= self.burst <= LARGEST_BURST:
            raise InvalidValue(f"a burst of {self.burst}: must be 1 to {LARGEST_BURST}")


AS_SET: Final = RateLimit()


class RateLimiter(Protocol):
    """Counts the requests of keys: in one process, or over all front ends of a PostgreSQL."""

    def take(self, key_id: int, own: RateLimit = AS_SET) -> None:
        """Count one request of this key, or raise RateLimitExceeded."""


@dataclass(frozen=True, slots=True)
class _Spent:
    """The time at which a key's allowance is whole again, and the share of one request."""

    whole_at_ns: int
    interval_ns: int


class Rate:
    """Lets `burst` requests of a key through at once and `per_s` a second in the long run.

    The generic cell rate algorithm (ITU-T I.371): one number per key, the time at which its
    allowance is whole again. The libraries at hand count whole milliseconds, keep an object and a
    timer per key, and cannot say after which whole second a refused request will pass.
    """

    def __init__(
        self, per_s: float, burst: int, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock_ns = clock_ns
        self._spent: dict[int, _Spent] = {}
        self._prune_at = _SMALLEST_PRUNE
        self._lock = threading.Lock()

    def take(self, key_id: int, own: RateLimit = AS_SET) -> None:
        """Count one request of this key at its current rate; what it spent before is carried over.

        Raises:
            RateLimitExceeded: not counted; its `retry_after_s` is the least number of whole
                seconds after which a single request would pass.
        """
        burst = self._burst if own.burst is None else own.burst
        # Whole nanoseconds: sums of many intervals stay exact.
        interval_ns = round(NS_PER_S / (self._per_s if own.per_s is None else own.per_s))
        with self._lock:
            now_ns = self._clock_ns()
            whole_at_ns = self._whole_at_ns(key_id, now_ns, interval_ns, burst)
            wait_ns = whole_at_ns - (burst - 1) * interval_ns - now_ns
            if wait_ns > 0:
                retry_after_s = math.ceil(wait_ns / NS_PER_S)
                raise RateLimitExceeded(retry_after_s, reason="key_rate", detail=f"key {key_id}")
            self._spent[key_id] = _Spent(whole_at_ns + interval_ns, interval_ns)
            if len(self._spent) >= self._prune_at:
                self._prune(now_ns)

    def _whole_at_ns(self, key_id: int, now_ns: int, interval_ns: int, burst: int) -> int:
        """Return when the key's allowance is whole at its present rate, and keep that."""
        spent = self._spent.get(key_id)
        if spent is None or spent.whole_at_ns <= now_ns:
            return now_ns
        left_ns = (spent.whole_at_ns - now_ns) * interval_ns // spent.interval_ns
        whole_at_ns = now_ns + min(left_ns, burst * interval_ns)
        if whole_at_ns != spent.whole_at_ns:
            self._spent[key_id] = _Spent(whole_at_ns, interval_ns)
        return whole_at_ns

    def _prune(self, now_ns: int) -> None:
        """Drop keys with a whole allowance, which need no record."""
        self._spent = {
            key_id: spent for key_id, spent in self._spent.items() if spent.whole_at_ns > now_ns
        }
        self._prune_at = max(_SMALLEST_PRUNE, 2 * len(self._spent))


_CLOCK: Final = """(
    SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000000 AS bigint) AS now_ns
) AS clock"""
_TAKE: Final = sa.text(f"""
    INSERT INTO key_rates AS spent (key_id, whole_at_ns, interval_ns)
    SELECT :key_id, now_ns + CAST(:interval_ns AS bigint), :interval_ns FROM {_CLOCK}
    ON CONFLICT (key_id) DO UPDATE
    SET whole_at_ns =
        GREATEST(spent.whole_at_ns, excluded.whole_at_ns - :interval_ns) + :interval_ns
    WHERE spent.interval_ns = :interval_ns
        AND spent.whole_at_ns <= excluded.whole_at_ns - :interval_ns + :tolerance_ns
    RETURNING key_id""")  # noqa: S608  (made of constants)
_CONVERT: Final = sa.text(f"""
    UPDATE key_rates
    SET interval_ns = :interval_ns, whole_at_ns = now_ns + LEAST(
        CAST(:limit_ns AS bigint), CAST(trunc(CAST(GREATEST(whole_at_ns - now_ns, 0) AS numeric)
            * CAST(:interval_ns AS bigint) / interval_ns) AS bigint))
    FROM {_CLOCK}
    WHERE key_id = :key_id
        AND (interval_ns <> :interval_ns OR whole_at_ns > now_ns + CAST(:limit_ns AS bigint))
""")  # noqa: S608
_WAIT: Final = sa.text(f"""
    SELECT whole_at_ns - now_ns - CAST(:tolerance_ns AS bigint) FROM key_rates, {_CLOCK}
    WHERE key_id = :key_id""")  # noqa: S608


class SharedRate:
    """The algorithm of `Rate` by the clock of a PostgreSQL, in statements that lock one key's row.

    The table is unlogged: no request waits for a disk, and a crash makes every allowance whole.
    """

    def __init__(self, database: Database, per_s: float, burst: int) -> None:
        self._database = database
        self._per_s = per_s
        self._burst = burst

    def take(self, key_id: int, own: RateLimit = AS_SET) -> None:
        """Count one request of this key, as `Rate.take` does; DatabaseFailed where it cannot."""
        burst = self._burst if own.burst is None else own.burst
        interval_ns = round(NS_PER_S / (self._per_s if own.per_s is None else own.per_s))
        values = {"key_id": key_id, "interval_ns": interval_ns}
        tolerance_ns, limit_ns = (burst - 1) * interval_ns, burst * interval_ns
        with self._database.autocommit() as connection:
            for _ in range(2):
                updated = connection.execute(_TAKE, {**values, "tolerance_ns": tolerance_ns})
                if updated.first() is not None:
                    return
                converted = connection.execute(_CONVERT, {**values, "limit_ns": limit_ns})
                if converted.rowcount == 0:
                    break
            wait = {"key_id": key_id, "tolerance_ns": tolerance_ns}
            wait_ns = connection.execute(_WAIT, wait).scalar() or 0
        retry_after_s = max(1, math.ceil(wait_ns / NS_PER_S))
        raise RateLimitExceeded(retry_after_s, reason="key_rate", detail=f"key {key_id}")
