"""The audit log: which change of keys, credits and webhooks was made when, and by whom.

An entry is written in the transaction of its change: neither is there without the other.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.clocks import Clocks
from upscaled.state.database import Database
from upscaled.state.schema import AUDIT_ENTRIES

AuditAction = Literal[
    "keys create",
    "keys rate",
    "keys rename",
    "keys rotate",
    "keys set",
    "keys webhook",
    "keys revoke",
    "credits add",
    "credits take",
    "credits transfer",
    "webhooks retry",
]
"""The command that makes such a change, and what HTTP's administration makes alike."""

Detail = str | int | float | None
SERVICE_ITSELF: Final = "upscaled"
"""The actor of changes without an administrator: the keys `first` and `local` that a start makes,
and changes by programs that use the state."""

REMOVED_AT_ONCE: Final = 1000
"""In one transaction: the holds of requests wait for SQLite's one writer no longer than that."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change that was made.

    at_s: seconds since 1970. actor: `user@machine` of a command, `admin:NAME` over HTTP. subject:
    the name that the key had before, or the id of a webhook's job. key_id: of the key, or of the
    job's key. details: what was given; never a secret.
    """

    at_s: int
    actor: str
    action: str
    subject: str
    key_id: int
    details: Mapping[str, Detail]


class AuditLog:
    """The audit log of one database, for any thread."""

    def __init__(self, database: Database, clocks: Clocks, *, keep_s: float) -> None:
        """Keep entries for `keep_s`; infinity: for ever."""
        self._database = database
        self._clocks = clocks
        self._keep_s = keep_s

    def note(
        self,
        connection: Connection,
        actor: str,
        action: AuditAction,
        subject: str,
        key_id: int,
        **details: Detail,
    ) -> None:
        """Write the entry of a change, in its transaction; details that are None are left out."""
        known = {name: value for name, value in details.items() if value is not None}
        connection.execute(
            sa.insert(AUDIT_ENTRIES).values(
                at_s=int(self._clocks.wall()),
                actor=actor,
                action=action,
                subject=subject,
                key_id=key_id,
                details=json.dumps(known),
            )
        )

    def list(
        self, *, since_s: float = 0, until_s: float | None = None, last: int | None = None
    ) -> tuple[AuditEntry, ...]:
        """Return the entries of a time (from `since_s`, before `until_s`), oldest first.

        `last` keeps only so many of them, the newest.
        """
        row = AUDIT_ENTRIES.c
        query = sa.select(AUDIT_ENTRIES).where(row.at_s >= since_s).order_by(row.id.desc())
        if until_s is not None:
            query = query.where(row.at_s < until_s)
        with self._database.read() as connection:
            entries = [_from_row(each) for each in connection.execute(query.limit(last))]
        return tuple(reversed(entries))

    def remove_old(self) -> int:
        """Remove entries older than the retention time in batches, and return how many.

        They are in order of time: the first one shows whether any is due.
        """
        row, before_s, removed = AUDIT_ENTRIES.c, self._clocks.wall() - self._keep_s, 0
        first = sa.select(row.at_s).order_by(row.id).limit(1)
        old = sa.select(row.id).where(row.at_s < before_s).order_by(row.id).limit(REMOVED_AT_ONCE)
        while math.isfinite(before_s):
            with self._database.write() as connection:
                oldest_s = connection.execute(first).scalar_one_or_none()
                if oldest_s is None or oldest_s >= before_s:
                    break
                delete = sa.delete(AUDIT_ENTRIES).where(row.id.in_(old))
                removed += connection.execute(delete).rowcount
        return removed


def _from_row(row: sa.Row[Any]) -> AuditEntry:
    details = json.loads(row.details)
    return AuditEntry(row.at_s, row.actor, row.action, row.subject, row.key_id, details)
