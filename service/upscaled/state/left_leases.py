"""End leases that dead processes left on SQLite, as soon as one that serves starts.

They would run out by themselves, but a client that sends a request again is refused until then.
"""

import logging
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.logs import event
from upscaled.state.clocks import DatabaseClock
from upscaled.state.database import Database
from upscaled.state.errors import StateError
from upscaled.state.holder import Holder
from upscaled.state.schema import IDEMPOTENCY_KEYS, JOBS, WEBHOOK_DELIVERIES

_OVER_S: Final = 0.0

_log: Final = logging.getLogger(__name__)


def end_left_leases(database: Database, holder: Holder, clock: DatabaseClock) -> None:
    """Show this process to be alive, and end all leases where no other one is.

    To be called by each process that serves, before it takes its first lease: one that starts at
    the same moment is then seen by its locked file, or has no lease yet. Where it fails, as on a
    full disk, that is logged, and the leases run out by themselves.
    """
    try:
        with database.write() as connection:
            if not holder.is_alone():
                return
            _end_leases(connection)
    except (StateError, OSError) as error:
        fields = event("left_leases_kept")
        text = "leases of dead processes cannot be ended, and run out by themselves: %s"
        _log.warning(text, str(error), extra=fields)
    else:
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
