"""Idempotency keys: a request that is sent again gets the first answer, and is not charged again.

    reserve ──> running (lease) ──complete──> answered ──24 h──> gone
                   │  └─abandon──> gone: the request failed, and may be sent again
                   └─ lease over: its front end died. What the ledger says decides: a captured
                      hold with a stored result is the answer, anything else may be done anew

A key belongs to one API key and to one request: another request under it is refused.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import InvalidParameter, RequestInProgress
from upscaled.state import ledger
from upscaled.state.clocks import Clocks, DatabaseClock
from upscaled.state.database import Database, database_time_s, has_come, insert_into
from upscaled.state.holder import Holder
from upscaled.state.ledger import Hold
from upscaled.state.schema import IDEMPOTENCY_KEYS, STORED_RESULTS

LIFETIME_S: Final = 86_400.0
"""From the first request on; the same key is a new one afterwards."""
LEASE_S: Final = 30.0
RENEW_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The client's `Idempotency-Key`, its API key, and a fingerprint of what decides the answer."""

    key_id: int
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to answer a request, as long as its lease is renewed.

    request_id: of the credit's hold; made by the server. is_paid: the request was charged before,
    and its result has expired: no credit is held.
    """

    key: RequestKey
    request_id: str
    is_paid: bool


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A success that was delivered: where its image is stored, and headers that went with it."""

    file_name: str
    media_type: str
    headers: dict[str, str]


_GONE: Final = StoredAnswer("", "", {})
"""Marks a request that was paid for and whose result is not there any more: one that expired after
its front end had died, or one of a job whose lifetime is over."""


class IdempotencyKeys:
    """The idempotency keys of one database, for any thread and any number of processes."""

    def __init__(
        self, database: Database, clocks: Clocks, database_clock: DatabaseClock, holder: Holder
    ) -> None:
        """Use a database, and the wall clock of `clocks` to date the entries of the ledger."""
        self._database = database
        self._clocks = clocks
        self._database_clock = database_clock
        self._holder = holder

    def reserve(self, key: RequestKey) -> Reservation | StoredAnswer:
        """Reserve a request, or return the answer that it got.

        Raises:
            InvalidParameter: the key was used for another request.
            RequestInProgress: the first request is still running, or its outcome is not known yet.
        """
        process_id = self._holder.process_id
        with self._database.write() as connection:
            is_settled = self._database_clock.has_run_steadily(connection, LEASE_S)
            request_id = str(uuid.uuid4())
            if insert_key(connection, key, request_id, leased_by=process_id):
                return Reservation(key, request_id, is_paid=False)
            row = read_key(connection, key)
            _refuse_under_way(row, is_settled=is_settled)
            if row.answer is not None:
                return StoredAnswer(**json.loads(row.answer))
            return self._take_over(connection, key, row.request_id, process_id)

    def reserve_again(self, key: RequestKey, expired: StoredAnswer) -> Reservation:
        """Reserve a request whose answer is known, but whose result has expired: it is paid.

        Raises:
            RequestInProgress: another call did so first.
        """
        process_id = self._holder.process_id
        with self._database.write() as connection:
            is_settled = self._database_clock.has_run_steadily(connection, LEASE_S)
            row = read_key(connection, key)
            _refuse_under_way(row, is_settled=is_settled)
            if row.answer != _format(expired):
                raise RequestInProgress
            lease = _lease(connection, process_id, row.request_id)
            _update(connection, key, row.request_id, lease)
            return Reservation(key, row.request_id, is_paid=True)

    def renew(self, reservation: Reservation) -> None:
        """Renew the lease of a reservation; one that is completed has none."""
        row = _is_row(reservation.key, reservation.request_id)
        with self._database.write() as connection:
            connection.execute(
                sa.update(IDEMPOTENCY_KEYS)
                .where(row, IDEMPOTENCY_KEYS.c.lease_until_s.is_not(None))
                .values(lease_until_s=database_time_s(connection) + LEASE_S)
            )

    def complete(self, reservation: Reservation, answer: StoredAnswer) -> None:
        """Record the answer of a request that was delivered."""
        with self._database.write() as connection:
            values = {"answer": _format(answer), "lease_until_s": None}
            _update(connection, reservation.key, reservation.request_id, values)

    def abandon(self, reservation: Reservation) -> None:
        """Delete the record of a request that failed, unless it was paid for; end its lease."""
        key = reservation.key
        row = _is_row(key, reservation.request_id)
        with self._database.write() as connection:
            if not _is_paid(connection, Hold(key.key_id, reservation.request_id)):
                is_unanswered = IDEMPOTENCY_KEYS.c.answer.is_(None)
                connection.execute(sa.delete(IDEMPOTENCY_KEYS).where(row, is_unanswered))
            _update(connection, key, reservation.request_id, {"lease_until_s": None})

    def remove_old(self) -> int:
        """Remove keys whose lifetime is over; return how many."""
        with self._database.write() as connection:
            is_old = IDEMPOTENCY_KEYS.c.created_at_s < database_time_s(connection) - LIFETIME_S
            return connection.execute(sa.delete(IDEMPOTENCY_KEYS).where(is_old)).rowcount

    def _take_over(
        self, connection: Connection, key: RequestKey, request_id: str, process_id: str
    ) -> Reservation | StoredAnswer:
        """Settle a request whose front end died, by what the ledger says of it."""
        hold = Hold(key.key_id, request_id)
        ledger.release(connection, hold, at_s=int(self._clocks.wall()))
        if not _is_paid(connection, hold):
            new_id = str(uuid.uuid4())
            _update(connection, key, request_id, _lease(connection, process_id, new_id))
            return Reservation(key, new_id, is_paid=False)
        query = sa.select(STORED_RESULTS).where(STORED_RESULTS.c.request_id == request_id)
        stored = connection.execute(query).one_or_none()
        answer = _GONE if stored is None else StoredAnswer(stored.file_name, stored.media_type, {})
        _update(connection, key, request_id, {"answer": _format(answer), "lease_until_s": None})
        return answer


def insert_key(
    connection: Connection, key: RequestKey, request_id: str, *, leased_by: str | None
) -> bool:
    """Insert a key in the caller's transaction; return False if it is there within its lifetime.

    On PostgreSQL this waits for another transaction that is inserting the same key.
    leased_by: the process that answers the request; None for a job, which has its own lease.
    """
    now_s = database_time_s(connection)
    row = IDEMPOTENCY_KEYS.c
    connection.execute(
        sa.delete(IDEMPOTENCY_KEYS).where(
            row.key_id == key.key_id, row.name == key.name, row.created_at_s < now_s - LIFETIME_S
        )
    )
    inserted = connection.execute(
        insert_into(connection, IDEMPOTENCY_KEYS)
        .values(
            key_id=key.key_id,
            name=key.name,
            fingerprint=key.fingerprint,
            request_id=request_id,
            is_job=leased_by is None,
            lease_until_s=None if leased_by is None else now_s + LEASE_S,
            leased_by=leased_by,
            created_at_s=now_s,
        )
        .on_conflict_do_nothing()
        .returning(row.request_id)  # the count of rows is -1 on psycopg
    )
    return inserted.first() is not None


def read_key(connection: Connection, key: RequestKey) -> sa.Row[Any]:
    """Return a key's row, locked; `is_running` says whether its lease is valid.

    Raises:
        InvalidParameter: it was used for another request.
        RequestInProgress: it was removed just now; a retry finds what is there then.
    """
    row = IDEMPOTENCY_KEYS.c
    is_over = has_come(connection, row.lease_until_s, LEASE_S)
    is_running = sa.func.coalesce(sa.not_(is_over), sa.false())
    query = (
        sa.select(IDEMPOTENCY_KEYS, is_running.label("is_running"))
        .where(row.key_id == key.key_id, row.name == key.name)
        .with_for_update()  # SQLite has one writer anyway
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        raise RequestInProgress
    _require_same(found.fingerprint, key)
    return found


def is_known(connection: Connection, key: RequestKey) -> bool:
    """Return whether the request was sent under this key before; InvalidParameter: another was."""
    row = IDEMPOTENCY_KEYS.c
    query = sa.select(row.fingerprint).where(
        row.key_id == key.key_id,
        row.name == key.name,
        row.created_at_s >= database_time_s(connection) - LIFETIME_S,
    )
    found = connection.execute(query).scalar_one_or_none()
    if found is not None:
        _require_same(found, key)
    return found is not None


def _require_same(fingerprint: str, key: RequestKey) -> None:
    if fingerprint != key.fingerprint:
        raise InvalidParameter("Idempotency-Key was used for another request")


def make_anew(connection: Connection, key: RequestKey, row: sa.Row[Any], new_id: str) -> bool:
    """Give the request of a `read_key` row another id, and return if it is paid.

    What was paid for once stays so, however often the result expires within the key's lifetime.
    """
    is_paid = row.answer is not None or _is_paid(connection, Hold(key.key_id, row.request_id))
    values = {"request_id": new_id, "answer": _format(_GONE) if is_paid else None}
    _update(connection, key, row.request_id, values)
    return is_paid


def is_answered(connection: Connection, hold: Hold) -> bool:
    """Return whether a retry of the hold's request has been given what was paid for.

    Its row is locked, so that no retry is given it until the transaction ends.
    """
    row = IDEMPOTENCY_KEYS.c
    query = (
        sa.select(row.answer)
        .where(row.key_id == hold.key_id, row.request_id == hold.request_id)
        .with_for_update()
    )
    return connection.execute(query).scalar_one_or_none() is not None


def _refuse_under_way(row: sa.Row[Any], *, is_settled: bool) -> None:
    """Raise RequestInProgress for a `read_key` row under a lease that is, or may be, valid."""
    if row.is_running or (row.lease_until_s is not None and not is_settled):
        raise RequestInProgress


def _is_paid(connection: Connection, hold: Hold) -> bool:
    refund = Hold(hold.key_id, f"refund-{hold.request_id}")
    is_captured = ledger.has_entry(connection, hold, "capture")
    return is_captured and not ledger.has_entry(connection, refund, "grant")


def _lease(connection: Connection, process_id: str, request_id: str) -> dict[str, Any]:
    until_s = database_time_s(connection) + LEASE_S
    return {"request_id": request_id, "lease_until_s": until_s, "leased_by": process_id}


def _update(
    connection: Connection, key: RequestKey, request_id: str, values: Mapping[str, Any]
) -> None:
    row = sa.update(IDEMPOTENCY_KEYS).where(_is_row(key, request_id))
    connection.execute(row.values(values))


def _is_row(key: RequestKey, request_id: str) -> sa.ColumnElement[bool]:
    row = IDEMPOTENCY_KEYS.c
    return sa.and_(row.key_id == key.key_id, row.name == key.name, row.request_id == request_id)


def _format(answer: StoredAnswer) -> str:
    return json.dumps(asdict(answer))
