"""Webhooks: calls that say a job has ended, made at least once by any front end.

    a job's end ──> waiting ──claim (lease)──> 2xx ──> delivered
                       ^                        │ 410 ─> gone: its address is called no more
                       └── anything else, later ┴─ `MAX_ATTEMPTS` times ──> failed

A delivery is written in the transaction that ends its job. A front end that dies while it calls
leaves a lease, which runs out: the receiver may then be called twice, with the same `webhook-id`.
"""

from collections.abc import Collection
from typing import Final

import sqlalchemy as sa

from upscaled.state import webhook_rows
from upscaled.state.audit import SERVICE_ITSELF, AuditLog
from upscaled.state.clocks import DatabaseClock
from upscaled.state.database import Database, database_time_s
from upscaled.state.holder import Holder
from upscaled.state.job_rows import job_from_row, select_jobs
from upscaled.state.ledger import find_active, lock_active
from upscaled.state.left_leases import make_lease_id
from upscaled.state.schema import API_KEYS, JOBS, KEY_WEBHOOKS, WEBHOOK_DELIVERIES

WAITS_S: Final = (5, 30, 120, 600, 1_800, 3_600, 10_800, 25_200, 43_200)
"""Between one attempt and the next: ten attempts within 24 hours."""
MAX_ATTEMPTS: Final = len(WAITS_S) + 1
LEASE_S: Final = 60.0
"""Longer than an attempt may take: no front end calls what another one is calling."""


class Webhooks:
    """The webhooks of one database, for any thread and any number of processes.

    Methods that take a key's name raise `UnknownName` where no active key has it.
    """

    def __init__(
        self, database: Database, database_clock: DatabaseClock, holder: Holder, audit: AuditLog
    ) -> None:
        self._database = database
        self._database_clock = database_clock
        self._holder = holder
        self._audit = audit

    def configure(
        self, name: str, url: str | None, *, renews_secret: bool = False, by: str = SERVICE_ITSELF
    ) -> webhook_rows.KeyWebhook:
        """Set an active key's address (None: jobs name theirs), and a secret if it has none.

        Args:
            renews_secret: make a new one all the same.
            by: the actor for the audit log, as of `retry`.
        """
        with self._database.write() as connection:
            (key_id,) = lock_active(connection, name)
            old = webhook_rows.find_webhook(connection, key_id)
            new = webhook_rows.KeyWebhook(
                old.secret if old and not renews_secret else webhook_rows.make_secret(), url
            )
            connection.execute(sa.delete(KEY_WEBHOOKS).where(KEY_WEBHOOKS.c.key_id == key_id))
            connection.execute(
                sa.insert(KEY_WEBHOOKS).values(key_id=key_id, secret=new.secret, url=url)
            )
            is_new = old is None or old.secret != new.secret
            self._audit.note(
                connection,
                by,
                "keys webhook",
                name,
                key_id,
                site=None if url is None else webhook_rows.site_of(url),
                secret="new" if is_new else "kept",
            )
            return new

    def show(self, name: str) -> webhook_rows.KeyWebhook | None:
        with self._database.read() as connection:
            return webhook_rows.find_webhook(connection, find_active(connection, name))

    def has_secret(self, key_id: int) -> bool:
        """Return whether a key's jobs can name an address."""
        with self._database.read() as connection:
            return webhook_rows.find_webhook(connection, key_id) is not None

    def claim(self, busy_key_ids: Collection[int] = ()) -> webhook_rows.ClaimedDelivery | None:
        """Claim a due delivery of no busy key under a lease; None if there is none.

        First attempts go first, so that receivers which do not answer delay the others little.
        """
        row = WEBHOOK_DELIVERIES.c
        with self._database.read() as connection:  # most times there is none, and nothing to write
            due = self._select_due(connection, busy_key_ids)
            if connection.execute(due).first() is None:
                return None
        lease_id = make_lease_id(self._holder.process_id)
        with self._database.write() as connection:
            due = self._select_due(connection, busy_key_ids)
            if connection.dialect.name == "postgresql":
                due = due.with_for_update(skip_locked=True)
            claimed = connection.execute(
                sa.update(WEBHOOK_DELIVERIES)
                .where(row.job_id == due.scalar_subquery())
                .values(
                    attempts=row.attempts + 1,
                    lease_id=lease_id,
                    due_at_s=database_time_s(connection) + LEASE_S,
                )
                .returning(row.job_id, row.url, row.is_trusted, row.attempts)
            ).one_or_none()
            if claimed is None:
                return None
            query = select_jobs().add_columns(KEY_WEBHOOKS.c.secret)
            query = query.join(KEY_WEBHOOKS, KEY_WEBHOOKS.c.key_id == JOBS.c.key_id)
            job = connection.execute(query.where(JOBS.c.id == claimed.job_id)).one()
            return webhook_rows.ClaimedDelivery(
                job_from_row(job),
                claimed.url,
                claimed.is_trusted,
                job.secret,
                claimed.attempts,
                lease_id,
            )

    def _select_due(
        self, connection: sa.Connection, busy_key_ids: Collection[int]
    ) -> sa.Select[str]:
        takes_left = self._database_clock.has_run_steadily(connection, LEASE_S)
        return webhook_rows.select_due(
            connection, busy_key_ids, _longest_wait_s(), takes_left=takes_left
        )

    def record(
        self, claimed: webhook_rows.ClaimedDelivery, outcome: str, state: webhook_rows.DeliveryState
    ) -> webhook_rows.DeliveryState | None:
        """Record how an attempt ended, which gives the lease up.

        Args:
            outcome: the answer's status, or why there was none, for the operator.
            state: "waiting" for an attempt that failed; after the last one it is "failed". "gone"
                ends all that waits for the same address of the key, and the key's use of it.

        Returns:
            The state afterwards; None where another process has claimed it since.
        """
        row, key_id = WEBHOOK_DELIVERIES.c, claimed.job.key_id
        wait_s = 0
        if state == "waiting":
            if claimed.attempts < MAX_ATTEMPTS:
                wait_s = WAITS_S[claimed.attempts - 1]
            else:
                state = "failed"
        with self._database.write() as connection:
            recorded = connection.execute(
                sa.update(WEBHOOK_DELIVERIES)
                .where(row.job_id == claimed.job.id, row.lease_id == claimed.lease_id)
                .values(
                    state=state,
                    outcome=outcome,
                    lease_id=None,
                    due_at_s=database_time_s(connection) + wait_s,
                )
            )
            if not recorded.rowcount:
                return None
            if state == "gone":
                webhook_rows.give_up_address(connection, key_id, claimed.url, outcome)
            return state

    def put_back(self, claimed: webhook_rows.ClaimedDelivery) -> None:
        """Make a claimed delivery due again, as if this attempt had not begun."""
        row = WEBHOOK_DELIVERIES.c
        with self._database.write() as connection:
            connection.execute(
                sa.update(WEBHOOK_DELIVERIES)
                .where(row.job_id == claimed.job.id, row.lease_id == claimed.lease_id)
                .values(
                    attempts=row.attempts - 1, lease_id=None, due_at_s=database_time_s(connection)
                )
            )

    def retry(self, job_id: str, *, by: str = SERVICE_ITSELF) -> bool:
        """Make a delivery due now, with all its attempts; False where there is none of that job."""
        row = WEBHOOK_DELIVERIES.c
        with self._database.write() as connection:
            retried = connection.execute(
                sa.update(WEBHOOK_DELIVERIES)
                .where(row.job_id == job_id)
                .values(
                    state="waiting", attempts=0, lease_id=None, due_at_s=database_time_s(connection)
                )
                .returning(row.key_id)
            ).scalar_one_or_none()
            if retried is None:
                return False
            self._audit.note(connection, by, "webhooks retry", job_id, retried)
            return True

    def list(
        self,
        state: webhook_rows.DeliveryState | None = None,
        *,
        last: int | None = None,
        after: tuple[float, str] | None = None,
    ) -> tuple[webhook_rows.Delivery, ...]:
        """Return the deliveries of the jobs that are kept (in that state), the newest job first.

        last: only so many of them. after: only those behind this `Delivery.position`.
        """
        row, ended_at_s = WEBHOOK_DELIVERIES.c, JOBS.c.ended_at_s
        query = (
            sa.select(
                row.job_id,
                API_KEYS.c.name,
                *(row.url, row.state, row.attempts, row.due_at_s, row.outcome),
                ended_at_s,
            )
            .join(API_KEYS, API_KEYS.c.id == row.key_id)
            .join(JOBS, JOBS.c.id == row.job_id)
            .order_by(ended_at_s.desc(), row.job_id)
        )
        if after is not None:
            at_s, job_id = after
            is_same_time = sa.and_(ended_at_s == at_s, row.job_id > job_id)
            query = query.where(sa.or_(ended_at_s < at_s, is_same_time))
        if state is not None:
            query = query.where(row.state == state)
        with self._database.read() as connection:
            return tuple(
                webhook_rows.Delivery(*each) for each in connection.execute(query.limit(last))
            )


def _longest_wait_s() -> sa.ColumnElement[float]:
    """Return how far ahead a delivery is made due: its lease, or the wait behind an attempt."""
    row = WEBHOOK_DELIVERIES.c
    waits = [(row.attempts == attempts, wait_s) for attempts, wait_s in enumerate(WAITS_S, 1)]
    return sa.case((row.lease_id.is_not(None), LEASE_S), *waits, else_=0.0)
