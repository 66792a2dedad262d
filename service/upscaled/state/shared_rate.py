"""Rates of API keys over all front ends of one PostgreSQL, by its clock."""

import math
from typing import Final

import sqlalchemy as sa

from upscaled.errors import RateLimitExceeded
from upscaled.state.database import Database
from upscaled.state.rate import AS_SET, NS_PER_S, RateLimit

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
    """The algorithm of `rate.Rate`, as one statement that locks the key's row alone.

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
