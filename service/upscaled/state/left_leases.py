"""End the leases of processes that have certainly ended, so that nothing waits until they run out.

A client that sends a request again would be refused until then, and jobs and webhooks would wait.
Those of processes that cannot be shown to have ended, as on another machine, run out by time.
"""

import uuid
from collections.abc import Collection

import sqlalchemy as sa

from upscaled.state.database import Database
from upscaled.state.schema import IDEMPOTENCY_KEYS, JOBS, WEBHOOK_DELIVERIES

_DUE_S = 0.0


def make_lease_id(process_id: str) -> str:
    """Return a new id for a lease that a process takes."""
    return f"{process_id}.{uuid.uuid4().hex}"


def is_of_processes(
    lease_id: sa.ColumnElement[str] | sa.Column[str], process_ids: Collection[str]
) -> sa.ColumnElement[bool]:
    """Return the condition that one of the processes took a lease."""
    begin = (lease_id.startswith(f"{each}.", autoescape=True) for each in process_ids)
    return sa.or_(sa.false(), *begin)


def end_leases(database: Database, ended: Collection[str]) -> None:
    """End all leases of processes; what they were for can then be begun again."""
    if not ended:
        return
    job, key, delivery = JOBS.c, IDEMPOTENCY_KEYS.c, WEBHOOK_DELIVERIES.c
    with database.write() as connection:
        jobs = sa.update(JOBS).where(job.state == "running", is_of_processes(job.lease_id, ended))
        connection.execute(jobs.values(lease_until_s=None))
        keys = sa.update(IDEMPOTENCY_KEYS).where(key.leased_by.in_(ended))
        connection.execute(keys.values(lease_until_s=None))
        deliveries = sa.update(WEBHOOK_DELIVERIES).where(is_of_processes(delivery.lease_id, ended))
        connection.execute(deliveries.values(lease_id=None, due_at_s=_DUE_S))
