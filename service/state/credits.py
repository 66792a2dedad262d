"""The credit ledger: what a key may still spend, and why.

A delivered image is paid in two steps. `hold` takes the credit before the work, `capture` makes
that final when the result is stored, `release` gives it back when anything else happened:

    grant +n        hold -1 ──> capture 0
                            └─> release +1

Entries are only ever added, a balance changes in the same transaction as its entry, and the
database itself lets one capture or release through for each hold, whatever is tried again.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from service.errors import InsufficientApiCredits
from service.state.database import Database
from service.state.errors import DuplicateRequest, HoldReleased, InvalidAmount, UnknownName
from service.state.holder import Holder
from service.state.schema import API_KEYS, CREDIT_ENTRIES, OPEN_HOLDS

MAX_GRANT = 1_000_000_000
IMAGE_PRICE = 1


@dataclass(frozen=True, slots=True)
class Hold:
    """A credit taken for one request and not settled yet."""

    key_id: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A key whose entries do not add up to its balance, or do not agree with its open holds."""

    key_id: int
    balance: int
    entries_sum: int
    unsettled_holds: int
    open_holds: int


class Credits:
    """The ledger of one database, from any thread and any number of processes.

    max_hold_age_s: a hold older than this is given back although its holder seems alive.
    """

    def __init__(
        self,
        database: Database,
        holder: Holder,
        clock: Callable[[], float],
        *,
        max_hold_age_s: float,
    ) -> None:
        self._database = database
        self._holder = holder
        self._clock = clock
        self._max_hold_age_s = max_hold_age_s

    def balance(self, key_id: int) -> int:
        """Credits left, those on hold not counted."""
        with self._database.read() as connection:
            return _read_balance(connection, key_id)

    def show(self, name: str) -> int:
        """Credits left to the active key of that name. Raises UnknownName."""
        with self._database.read() as connection:
            return _read_balance(connection, _find_active(connection, name))

    def add(self, name: str, amount: int) -> int:
        """Give an active key credits, 1 to a thousand million at a time; returns its balance.

        Raises:
            UnknownName, InvalidAmount
        """
        check_amount(amount, smallest=1)
        with self._database.write() as connection:
            key_id = _find_active(connection, name)
            grant(connection, key_id, amount, at_s=int(self._clock()))
            return _read_balance(connection, key_id)

    def hold(self, key_id: int, request_id: str) -> Hold:
        """Take one credit for a request that is about to be worked on.

        `request_id` is the server's own, never one that a client chose: used twice it is refused.

        Raises:
            InsufficientApiCredits: the balance is 0.
            DuplicateRequest
        """
        holder_id = self._holder.id
        now_s = int(self._clock())
        try:
            with self._database.write() as connection:
                if not _change_balance(connection, key_id, -IMAGE_PRICE):
                    raise InsufficientApiCredits(detail=f"key {key_id}")
                _append(connection, key_id, request_id, "hold", -IMAGE_PRICE, now_s)
                connection.execute(
                    sa.insert(OPEN_HOLDS).values(
                        request_id=request_id, key_id=key_id, holder_id=holder_id, held_at_s=now_s
                    )
                )
        except IntegrityError:
            raise DuplicateRequest(f"request {request_id} has a hold already") from None
        return Hold(key_id, request_id)

    def capture(self, hold: Hold) -> None:
        """Make a hold final; done again it changes nothing.

        Raises:
            HoldReleased: it was given back before. The image must then not be delivered.
        """
        with self._database.write() as connection:
            if self._settle(connection, hold, "capture", 0):
                return
            if not _has_entry(connection, hold, "capture"):
                raise HoldReleased(f"the hold of request {hold.request_id} was released")

    def release(self, hold: Hold) -> bool:
        """Give a hold back and say whether this call did; a settled hold stays as it is."""
        with self._database.write() as connection:
            if not self._settle(connection, hold, "release", IMAGE_PRICE):
                return False
            return _change_balance(connection, hold.key_id, IMAGE_PRICE)

    def release_stale(self) -> int:
        """Give back the holds of processes that died, and those too old; returns how many."""
        holds = OPEN_HOLDS.c
        with self._holder.dead_ids() as dead_ids:
            too_old = holds.held_at_s < self._clock() - self._max_hold_age_s
            query = sa.select(holds.key_id, holds.request_id).where(
                sa.or_(holds.holder_id.in_(dead_ids), too_old)
            )
            with self._database.read() as connection:
                stale = [Hold(row.key_id, row.request_id) for row in connection.execute(query)]
            return sum(self.release(hold) for hold in stale)

    def audit(self) -> tuple[Discrepancy, ...]:
        """Every key whose ledger does not add up; empty when the books are right."""
        with self._database.read() as connection:
            rows = connection.execute(_AUDIT).all()
        return tuple(Discrepancy(*row) for row in rows)

    def _settle(self, connection: Connection, hold: Hold, kind: str, amount: int) -> bool:
        """Settle an open hold; False when it is not open. One of several at once gets True."""
        deleted = connection.execute(
            sa.delete(OPEN_HOLDS).where(
                OPEN_HOLDS.c.request_id == hold.request_id, OPEN_HOLDS.c.key_id == hold.key_id
            )
        )
        if deleted.rowcount == 0:
            return False
        _append(connection, hold.key_id, hold.request_id, kind, amount, int(self._clock()))
        return True


def grant(connection: Connection, key_id: int, amount: int, *, at_s: int) -> None:
    """Add credits to a key, in the caller's transaction."""
    _change_balance(connection, key_id, amount)
    _append(connection, key_id, f"grant-{uuid.uuid4()}", "grant", amount, at_s)


def check_amount(amount: int, *, smallest: int) -> None:
    """Raise InvalidAmount for credits that cannot be given."""
    if not smallest <= amount <= MAX_GRANT:
        raise InvalidAmount(f"{amount} credits: must be {smallest} to {MAX_GRANT}")


def _find_active(connection: Connection, name: str) -> int:
    query = sa.select(API_KEYS.c.id).where(
        API_KEYS.c.name == name, API_KEYS.c.revoked_at_s.is_(None)
    )
    key_id = connection.execute(query).scalar_one_or_none()
    if key_id is None:
        raise UnknownName(f"there is no active API key named {name}")
    return int(key_id)


def _read_balance(connection: Connection, key_id: int) -> int:
    query = sa.select(API_KEYS.c.balance).where(API_KEYS.c.id == key_id)
    return int(connection.execute(query).scalar_one())


def _change_balance(connection: Connection, key_id: int, amount: int) -> bool:
    """False, and nothing changed, where the balance would fall below 0."""
    changed = connection.execute(
        sa.update(API_KEYS)
        .where(API_KEYS.c.id == key_id, API_KEYS.c.balance + amount >= 0)
        .values(balance=API_KEYS.c.balance + amount)
    )
    return changed.rowcount == 1


def _append(
    connection: Connection, key_id: int, request_id: str, kind: str, amount: int, at_s: int
) -> None:
    connection.execute(
        sa.insert(CREDIT_ENTRIES).values(
            key_id=key_id, request_id=request_id, kind=kind, amount=amount, at_s=at_s
        )
    )


def _has_entry(connection: Connection, hold: Hold, kind: str) -> bool:
    entries = CREDIT_ENTRIES.c
    query = sa.select(entries.id).where(
        entries.request_id == hold.request_id, entries.key_id == hold.key_id, entries.kind == kind
    )
    return connection.execute(query).first() is not None


def _audit_query() -> sa.Select[int, int, int, int, int]:
    entries, keys = CREDIT_ENTRIES.c, API_KEYS.c
    unsettled = sa.case((entries.kind == "hold", 1), (entries.kind == "grant", 0), else_=-1)
    sums = (
        sa.select(
            entries.key_id,
            sa.func.sum(entries.amount).label("amount"),
            sa.func.sum(unsettled).label("unsettled"),
        )
        .group_by(entries.key_id)
        .subquery()
    )
    opened = (
        sa.select(OPEN_HOLDS.c.key_id, sa.func.count().label("count"))
        .group_by(OPEN_HOLDS.c.key_id)
        .subquery()
    )
    amount = sa.cast(sa.func.coalesce(sums.c.amount, 0), sa.BigInteger)
    unsettled_holds = sa.cast(sa.func.coalesce(sums.c.unsettled, 0), sa.BigInteger)
    open_holds = sa.func.coalesce(opened.c.count, 0)
    return (
        sa.select(keys.id, keys.balance, amount, unsettled_holds, open_holds)
        .join_from(API_KEYS, sums, sums.c.key_id == keys.id, isouter=True)
        .outerjoin(opened, opened.c.key_id == keys.id)
        .where(sa.or_(keys.balance != amount, unsettled_holds != open_holds))
        .order_by(keys.id)
    )


_AUDIT = _audit_query()
