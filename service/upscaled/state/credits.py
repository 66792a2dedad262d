"""The credit ledger: the balance of each API key, and the entries that add up to it.

A delivered image is paid in two steps. `hold` takes the credit before the work, `capture` makes
that final when the result is stored, `release` gives it back when anything else happened:

    grant +n        hold -1 ──> capture 0 ──> (grant +1, named refund-<request id>)
                            └─> release +1

A capture may be committed although its caller only sees that the connection was lost. The image is
then not delivered, and `give_back` grants the credit again, once.

Entries are only ever added, a balance changes in the same transaction as its entry, and the
database itself lets one capture or release through for each hold, whatever is tried again.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from upscaled.errors import InsufficientApiCredits
from upscaled.state.clocks import Clocks
from upscaled.state.database import Database
from upscaled.state.errors import (
    DatabaseFailed,
    DuplicateRequest,
    HoldReleased,
    InvalidAmount,
    UnknownName,
)
from upscaled.state.holder import Holder
from upscaled.state.owed import Hold, OnGivenBack, OwedCredits
from upscaled.state.schema import API_KEYS, CREDIT_ENTRIES, OPEN_HOLDS, STORED_RESULTS

MAX_GRANT = 1_000_000_000
"""Most credits in one grant: a typing error stays far from the limits of a 64-bit balance."""
IMAGE_PRICE = 1


@dataclass(frozen=True, slots=True)
class PaidResult:
    """A stored result that a capture pays for; `media_type` is `image/jpeg` or `image/png`."""

    file_name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A key whose entries do not add up to its balance, or do not agree with its open holds."""

    key_id: int
    balance: int
    entries_sum: int
    unsettled_holds: int
    open_holds: int


class Credits:
    """The credit ledger of one database, for any thread and any number of processes.

    max_hold_age_s: no request takes longer, so an older hold was forgotten and is given back. The
    age of this process's own holds is measured by a clock that cannot be set. Holds of other living
    processes are left to them. The wall clock decides only where a hold's process left no file.

    owed: holds that could not be given back, to be tried again by `settle_owed`.
    """

    def __init__(
        self,
        database: Database,
        holder: Holder,
        clocks: Clocks,
        *,
        max_hold_age_s: float,
    ) -> None:
        self.owed = OwedCredits()
        self._database = database
        self._holder = holder
        self._clock: Callable[[], float] = clocks.wall
        self._running_clock = clocks.running
        # Request id to its hold and the time of the hold by the running clock.
        self._own: dict[str, tuple[Hold, float]] = {}
        self._max_hold_age_s = max_hold_age_s

    def balance(self, key_id: int) -> int:
        """Return a key's credits, without those on hold."""
        with self._database.read() as connection:
            return _read_balance(connection, key_id)

    def show(self, name: str) -> int:
        """Return the credits of an active key, without those on hold.

        Raises:
            UnknownName: no active key has that name.
        """
        with self._database.read() as connection:
            return _read_balance(connection, _find_active(connection, name))

    def add(self, name: str, amount: int) -> int:
        """Grant credits to an active key and return its new balance.

        Raises:
            InvalidAmount: the amount is not 1 to `MAX_GRANT`.
            UnknownName: no active key has that name.
        """
        check_amount(amount, smallest=1)
        with self._database.write() as connection:
            key_id = _find_active(connection, name)
            grant(connection, key_id, amount, at_s=int(self._clock()))
            return _read_balance(connection, key_id)

    def hold(self, key_id: int, request_id: str) -> Hold:
        """Hold one credit for a request before its work begins.

        Args:
            request_id: made by the server, never chosen by a client.

        Raises:
            InsufficientApiCredits: the balance is 0.
            DuplicateRequest: the request id was used for a hold before.
            DatabaseFailed, FolderUnusable: there is no hold; one that may have been committed is
                owed.
        """
        holder_id = self._holder.id
        hold = Hold(key_id, request_id)
        try:
            with self._database.write() as connection:
                self._insert_hold(connection, hold, holder_id)
        except IntegrityError:
            raise DuplicateRequest(f"request {request_id} has a hold already") from None
        except DatabaseFailed as error:
            if error.is_connection_lost:  # it may have been committed all the same
                self.owed.add(hold)
            raise
        self._own[request_id] = (hold, self._running_clock())
        return hold

    def capture(self, hold: Hold, paid: PaidResult | None = None) -> None:
        """Make a hold final; done again it changes nothing.

        paid: the result to remember with it, in the same transaction; None: none is stored.

        Raises:
            HoldReleased: it was given back before. The image must then not be delivered.
            DatabaseFailed: it may have been captured or not: call this again, or `give_back`.
        """
        with self._database.write() as connection:
            if self._settle(connection, hold, "capture", 0):
                if paid is not None:
                    _remember(connection, hold, paid, int(self._clock()))
            elif not _has_entry(connection, hold, "capture"):
                raise HoldReleased(f"the hold of request {hold.request_id} was released")
        self._own.pop(hold.request_id, None)

    def release(self, hold: Hold) -> bool:
        """Release a hold; return False for one that was settled before, which stays as it is."""
        with self._database.write() as connection:
            is_released = self._release(connection, hold)
        self._own.pop(hold.request_id, None)
        return is_released

    def give_back(self, hold: Hold) -> bool:
        """Make sure that a request whose image was not delivered costs nothing.

        An open hold is released. One that was captured, unknown to its caller, is granted again,
        and the record of its result removed.

        Returns:
            Whether this call gave a credit back; a second call does not.
        """
        try:
            with self._database.write() as connection:
                is_given_back = self._release(connection, hold)
                if not is_given_back and _has_entry(connection, hold, "capture"):
                    is_given_back = self._refund(connection, hold)
        except IntegrityError:  # another call was granting it at the same time
            is_given_back = False
        self._own.pop(hold.request_id, None)
        return is_given_back

    def give_back_or_owe(self, hold: Hold) -> bool:
        """Do `give_back`, and leave the hold to `settle_owed` if that fails.

        Raises:
            DatabaseFailed: as of `give_back`; the hold is then owed.
        """
        try:
            return self.give_back(hold)
        except BaseException:
            self.owed.add(hold)
            raise

    def settle_owed(self, on_given_back: OnGivenBack | None = None) -> int:
        """Give back what is owed as `OwedCredits.settle` does, and return how many credits."""
        return self.owed.settle(self.give_back, on_given_back)

    def release_stale(self) -> int:
        """Release the holds of processes that died, and forgotten ones; return how many."""
        holds = OPEN_HOLDS.c
        with self._holder.survey() as holders:
            is_traceless = holds.holder_id.not_in([*holders.dead, *holders.living])
            is_too_old = holds.held_at_s < self._clock() - self._max_hold_age_s
            query = sa.select(holds.key_id, holds.request_id).where(
                sa.or_(holds.holder_id.in_(holders.dead), sa.and_(is_traceless, is_too_old))
            )
            with self._database.read() as connection:
                stale = [Hold(row.key_id, row.request_id) for row in connection.execute(query)]
            return sum(self.release(hold) for hold in [*stale, *self._forgotten()])

    def _forgotten(self) -> list[Hold]:
        """Return this process's own holds that are too old for any request."""
        since_s = self._running_clock() - self._max_hold_age_s
        return [hold for hold, held_at_s in list(self._own.values()) if held_at_s < since_s]

    def audit(self) -> tuple[Discrepancy, ...]:
        """Return every key whose ledger does not add up; empty when all do."""
        with self._database.read() as connection:
            return audit(connection)

    def _insert_hold(self, connection: Connection, hold: Hold, holder_id: str) -> None:
        now_s = int(self._clock())
        if not _change_balance(connection, hold.key_id, -IMAGE_PRICE):
            raise InsufficientApiCredits(detail=f"key {hold.key_id}")
        _append(connection, hold.key_id, hold.request_id, "hold", -IMAGE_PRICE, now_s)
        connection.execute(
            sa.insert(OPEN_HOLDS).values(
                request_id=hold.request_id,
                key_id=hold.key_id,
                holder_id=holder_id,
                held_at_s=now_s,
            )
        )

    def _release(self, connection: Connection, hold: Hold) -> bool:
        if not self._settle(connection, hold, "release", IMAGE_PRICE):
            return False
        return _change_balance(connection, hold.key_id, IMAGE_PRICE)

    def _refund(self, connection: Connection, hold: Hold) -> bool:
        refund = Hold(hold.key_id, f"refund-{hold.request_id}")
        if _has_entry(connection, refund, "grant"):
            return False
        _append(
            connection, hold.key_id, refund.request_id, "grant", IMAGE_PRICE, int(self._clock())
        )
        connection.execute(
            sa.delete(STORED_RESULTS).where(STORED_RESULTS.c.request_id == hold.request_id)
        )
        return _change_balance(connection, hold.key_id, IMAGE_PRICE)

    def _settle(self, connection: Connection, hold: Hold, kind: str, amount: int) -> bool:
        """Settle an open hold; return False if it is not open, also to all but one call at once."""
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
    """Raise InvalidAmount for a number of credits that cannot be granted."""
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
    """Change a balance; return False, and change nothing, if it would fall below 0."""
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


def _remember(connection: Connection, hold: Hold, paid: PaidResult, at_s: int) -> None:
    connection.execute(
        sa.insert(STORED_RESULTS).values(
            request_id=hold.request_id,
            key_id=hold.key_id,
            file_name=paid.file_name,
            media_type=paid.media_type,
            stored_at_s=at_s,
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


def audit(connection: Connection) -> tuple[Discrepancy, ...]:
    """Find every key whose ledger entries do not add up to its balance and its open holds."""
    return tuple(Discrepancy(*row) for row in connection.execute(_AUDIT).all())
