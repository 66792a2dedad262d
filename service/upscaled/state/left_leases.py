"""End leases that dead processes left on SQLite, as soon as one that serves starts.

They would run out by themselves, but a client that sends a request again is refused until then.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.clocks import DatabaseClock
from upscaled.state.database import Database
from upscaled.state.holder import Holder
from upscaled.state.schema import IDEMPOTENCY_KEYS, JOBS, WEBHOOK_DELIVERIES

_OVER_S = 0.0


def end_left_leases(database: Database, holder: Holder, clock: DatabaseClock) -> None:
    """Show this process to be alive; on SQLite, end all leases where no other one is.

    To be called by each process that serves, before it takes its first lease: one that starts at
    the same moment is then seen by its locked file, or has no lease yet. On PostgreSQL another
    machine may work under them.

    Raises:
        DatabaseFailed, FolderUnusable: as of `Holder.id`.
    """
    if database.is_server:
        return
    own_id = holder.id
    with database.write() as connection, holder.survey() as holders:
        if holders.living == [own_id]:
            _end_leases(connection)
            clock.note_no_lease()


def _end_leases(connection: Connection) -> None:
    """End every lease; what it was for is then settled as where one has run out."""
    job, key, delivery = JOBS.c, IDEMPOTENCY_KEYS.c, WEBHOOK_DELIVERIES.c
    connection.execute(
        sa.update(JOBS).where(job.lease_id.is_not(None)).values(lease_until_s=_OVER_S)
    )
    connection.execute(
        sa.update(IDEMPOTENCY_KEYS)
        .where(key.lease_until_s.is_not(None))
        .values(lease_until_s=_OVER_S)
    )
    connection.execute(
        sa.update(WEBHOOK_DELIVERIES)
        .where(delivery.lease_id.is_not(None))
        .values(lease_id=None, due_at_s=_OVER_S)
    )
