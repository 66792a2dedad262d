"""Balances and entries of the credit ledger: single steps, each in the caller's transaction.

Entries are only ever added; the one transaction that settles an open hold deletes its row.
"""

import uuid
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import InsufficientApiCredits
from upscaled.state.errors import InvalidValue, UnknownName
from upscaled.state.key_rows import is_name
from upscaled.state.schema import API_KEYS, CREDIT_ENTRIES, OPEN_HOLDS, STORED_RESULTS

MAX_GRANT: Final = 1_000_000_000
"""Most credits in one grant: a typing error stays far from the limits of a 64-bit balance."""
IMAGE_PRICE: Final = 1
JOB_HOLDER: Final = "jobs"
"""The holder of a job's hold: no process, so that the death of one gives none of them back."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A credit on hold for one request; `request_id` is made by the server."""

    key_id: int
    request_id: str


@dataclass(frozen=True, slots=True)
class PaidResult:
    """A stored result that a capture pays for."""

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


def check_amount(amount: int, *, smallest: int) -> None:
    """Raise InvalidValue for a number of credits that cannot be granted."""
    if not smallest <= amount <= MAX_GRANT:
        raise InvalidValue(f"{amount} credits: must be {smallest} to {MAX_GRANT}")


def refuse_impossible(name: str) -> None:
    """Raise UnknownName for a name that no key may have: PostgreSQL allows no NUL in a text."""
    if not is_name(name):
        raise UnknownName(f"there is no active API key named {name!r}")


def find_active(connection: Connection, name: str) -> int:
    """Return the id of the active key of that name, or raise UnknownName."""
    refuse_impossible(name)
    query = sa.select(API_KEYS.c.id).where(
        API_KEYS.c.name == name, API_KEYS.c.revoked_at_s.is_(None)
    )
    key_id = connection.execute(query).scalar_one_or_none()
    if key_id is None:
        raise UnknownName(f"there is no active API key named {name}")
    return int(key_id)


def lock_active(connection: Connection, *names: str, is_secret_new: bool = False) -> list[int]:
    """Return the ids of the active keys of these names, whose rows no other transaction changes.

    They are locked in the order of their ids, so that two transactions cannot block each other. A
    name without a key raises `UnknownName`.

    is_secret_new: they will get other secrets. PostgreSQL lets that wait for each transaction that
    has inserted rows of the key, such as a hold, which then waits for this lock. So it waits first.
    """
    for name in names:
        refuse_impossible(name)
    query = (
        sa.select(API_KEYS.c.name, API_KEYS.c.id)
        .where(API_KEYS.c.name.in_(names), API_KEYS.c.revoked_at_s.is_(None))
        .order_by(API_KEYS.c.id)
        .with_for_update(key_share=not is_secret_new)
    )
    ids = {row.name: int(row.id) for row in connection.execute(query)}
    for name in names:
        if name not in ids:
            raise UnknownName(f"there is no active API key named {name}")
    return [ids[name] for name in names]


def read_balance(connection: Connection, key_id: int) -> int:
    """Return a key's credits, without those on hold."""
    query = sa.select(API_KEYS.c.balance).where(API_KEYS.c.id == key_id)
    return int(connection.execute(query).scalar_one())


def grant(connection: Connection, key_id: int, amount: int, *, at_s: int) -> None:
    _change_balance(connection, key_id, amount)
    _append(connection, Hold(key_id, f"grant-{uuid.uuid4()}"), "grant", amount, at_s)


def take(connection: Connection, key_id: int, amount: int, *, at_s: int) -> None:
    """Take credits from a key; `InvalidValue`: it has fewer that are not on hold."""
    if not _change_balance(connection, key_id, -amount):
        balance = read_balance(connection, key_id)
        raise InvalidValue(f"{amount} credits: the key has {balance}")
    _append(connection, Hold(key_id, f"take-{uuid.uuid4()}"), "take", -amount, at_s)


def insert_hold(connection: Connection, hold: Hold, holder_id: str, *, at_s: int) -> None:
    """Put one credit on hold, and take it from the balance: last, as in `release`.

    PostgreSQL locks the key's row from then until the transaction ends, and all requests of a key
    at once wait for each other there.

    Raises:
        InsufficientApiCredits: the balance is 0.
        IntegrityError: the request id was used before.
    """
    _append(connection, hold, "hold", -IMAGE_PRICE, at_s)
    connection.execute(
        sa.insert(OPEN_HOLDS).values(
            request_id=hold.request_id, key_id=hold.key_id, holder_id=holder_id, held_at_s=at_s
        )
    )
    if not _change_balance(connection, hold.key_id, -IMAGE_PRICE):
        raise InsufficientApiCredits(detail=f"key {hold.key_id}")


def capture(connection: Connection, hold: Hold, paid: PaidResult | None, *, at_s: int) -> bool:
    """Capture an open hold, and record the result it pays for; return False if it is not open."""
    if not _settle(connection, hold, "capture", 0, at_s):
        return False
    if paid is not None:
        connection.execute(
            sa.insert(STORED_RESULTS).values(
                request_id=hold.request_id,
                key_id=hold.key_id,
                file_name=paid.file_name,
                media_type=paid.media_type,
                stored_at_s=at_s,
            )
        )
    return True


def release(connection: Connection, hold: Hold, *, at_s: int) -> bool:
    """Give the credit of an open hold back; return False if it is not open."""
    if not _settle(connection, hold, "release", IMAGE_PRICE, at_s):
        return False
    return _change_balance(connection, hold.key_id, IMAGE_PRICE)


def refund(connection: Connection, hold: Hold, *, at_s: int) -> bool:
    """Grant a captured credit again and delete its result's record; False if that was done before.

    IntegrityError: another transaction has just done it.
    """
    granted = Hold(hold.key_id, f"refund-{hold.request_id}")
    if has_entry(connection, granted, "grant"):
        return False
    _append(connection, granted, "grant", IMAGE_PRICE, at_s)
    connection.execute(
        sa.delete(STORED_RESULTS).where(STORED_RESULTS.c.request_id == hold.request_id)
    )
    return _change_balance(connection, hold.key_id, IMAGE_PRICE)


def has_entry(connection: Connection, hold: Hold, kind: str) -> bool:
    """Return whether the ledger has an entry of that kind for the hold's request."""
    entries = CREDIT_ENTRIES.c
    query = sa.select(entries.id).where(
        entries.request_id == hold.request_id, entries.key_id == hold.key_id, entries.kind == kind
    )
    return connection.execute(query).first() is not None


def _settle(connection: Connection, hold: Hold, kind: str, amount: int, at_s: int) -> bool:
    """Settle an open hold; return False if it is not open, also to all but one call at once."""
    deleted = connection.execute(
        sa.delete(OPEN_HOLDS).where(
            OPEN_HOLDS.c.request_id == hold.request_id, OPEN_HOLDS.c.key_id == hold.key_id
        )
    )
    if deleted.rowcount == 0:
        return False
    _append(connection, hold, kind, amount, at_s)
    return True


def _change_balance(connection: Connection, key_id: int, amount: int) -> bool:
    """Change a balance; return False, and change nothing, if it would fall below 0."""
    changed = connection.execute(
        sa.update(API_KEYS)
        .where(API_KEYS.c.id == key_id, API_KEYS.c.balance + amount >= 0)
        .values(balance=API_KEYS.c.balance + amount)
    )
    return changed.rowcount == 1


def _append(connection: Connection, hold: Hold, kind: str, amount: int, at_s: int) -> None:
    connection.execute(
        sa.insert(CREDIT_ENTRIES).values(
            key_id=hold.key_id, request_id=hold.request_id, kind=kind, amount=amount, at_s=at_s
        )
    )


def audit(connection: Connection) -> tuple[Discrepancy, ...]:
    """Find every key whose ledger entries do not add up to its balance and its open holds."""
    return tuple(Discrepancy(*row) for row in connection.execute(_AUDIT).all())


def _audit_query() -> sa.Select[int, int, int, int, int]:
    entries, keys = CREDIT_ENTRIES.c, API_KEYS.c
    unsettled = sa.case(
        (entries.kind == "hold", 1), (entries.kind.in_(["grant", "take"]), 0), else_=-1
    )
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


_AUDIT: Final = _audit_query()
