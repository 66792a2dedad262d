"""Create, verify, list and revoke API keys, which are stored only as a hash."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from upscaled.state.database import Database
from upscaled.state.errors import InvalidName, InvalidSecret, NameTaken, UnknownName
from upscaled.state.ledger import check_amount, grant
from upscaled.state.rate import AS_SET, RateLimit
from upscaled.state.schema import API_KEYS

SECRET_PREFIX = "upk_"  # noqa: S105  a mark by which scanners find a leaked key, not a password
_SECRET = re.compile(r"upk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key of a request whose secret was verified.

    balance: its credits, without those on hold. rate: its own, where it has one.
    """

    id: int
    name: str
    balance: int = 0
    rate: RateLimit = AS_SET


@dataclass(frozen=True, slots=True)
class ListedKey:
    """The fields of a key that may be shown; `shown_secret` is its beginning, `upk_0123..._...`."""

    name: str
    shown_secret: str
    created_at_s: int
    revoked_at_s: int | None
    balance: int
    rate: RateLimit


class Keys:
    """The API keys of one database, for any thread.

    A secret is `upk_`, a public id of 64 bits and 256 random bits. Its SHA-256 is stored: with
    that much randomness a slow hash would protect nothing and only be a lever to overload us.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._find = _build_find()

    def create(
        self, name: str, *, credits: int = 0, rate: RateLimit = AS_SET, secret: str | None = None
    ) -> str:
        """Make a key and return its secret, which cannot be read again.

        Names are 1 to 64 of letters, digits and `._@-`, and unique among the active keys: after a
        revoke the name may be used for a new key. Credits do not move to it.

        Args:
            secret: in the form of our keys; None: a new one.

        Raises:
            InvalidName, InvalidAmount, InvalidRate, InvalidSecret: the value is out of range.
            NameTaken: an active key has the name.
        """
        check_name(name)
        check_amount(credits, smallest=0)
        rate.check()
        if secret is None:
            secret = f"{SECRET_PREFIX}{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
        match = _SECRET.fullmatch(secret)
        if match is None:
            raise InvalidSecret("the secret does not have the form of an API key")
        try:
            with self._database.write() as connection:
                key_id = self._insert(connection, name, match[1], secret, rate)
                if credits:
                    grant(connection, key_id, credits, at_s=int(self._clock()))
        except IntegrityError:
            raise NameTaken(f"an API key named {name} is already active") from None
        return secret

    def verify(self, secret: str) -> ApiKey | None:
        """Return the active key that `secret` belongs to, or None.

        Reads the database each time, so that a revoke by another process holds at once. An unknown
        public id takes the steps of a known one with another secret: the row of the next smaller id
        is read and its hash compared, so its duration does not show which ids exist. The
        database may compare hashes byte by byte: no client can choose the bytes of a SHA-256.
        """
        match = _SECRET.fullmatch(secret)
        if match is None:
            return None
        parameters = {"public_id": match[1], "secret_sha256": hash_secret(secret)}
        with self._database.read() as connection:
            row = connection.execute(self._find, parameters).one_or_none()
        if row is None:
            return None
        return ApiKey(row.id, row.name, row.balance, RateLimit(row.rate_per_s, row.rate_burst))

    def list(self) -> tuple[ListedKey, ...]:
        """Return every key ever made, including revoked ones, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(API_KEYS).order_by(API_KEYS.c.id)).all()
        return tuple(
            ListedKey(
                name=row.name,
                shown_secret=f"{SECRET_PREFIX}{row.public_id}_...",
                created_at_s=row.created_at_s,
                revoked_at_s=row.revoked_at_s,
                balance=row.balance,
                rate=RateLimit(row.rate_per_s, row.rate_burst),
            )
            for row in rows
        )

    def names(self) -> tuple[str, ...]:
        """Return the names of the active keys."""
        return tuple(key.name for key in self.list() if key.revoked_at_s is None)

    def is_empty(self) -> bool:
        """Return whether no key was ever made; a revoked key counts as made."""
        with self._database.read() as connection:
            return connection.execute(sa.select(API_KEYS.c.id).limit(1)).first() is None

    def revoke(self, name: str) -> None:
        """End an active key: from now on, in every process, its secret is unknown.

        Raises:
            UnknownName: no active key has that name.
        """
        self._update(name, revoked_at_s=int(self._clock()))

    def set_rate(self, name: str, rate: RateLimit) -> None:
        """Give an active key a rate of its own, in every process from its next request on.

        Raises:
            UnknownName: no active key has that name.
            InvalidRate: the rate or burst is out of range.
        """
        rate.check()
        self._update(name, rate_per_s=rate.per_s, rate_burst=rate.burst)

    def _update(self, name: str, **values: float | None) -> None:
        """Change columns of an active key; raise UnknownName if there is none of that name."""
        with self._database.write() as connection:
            changed = connection.execute(
                sa.update(API_KEYS)
                .where(API_KEYS.c.name == name, API_KEYS.c.revoked_at_s.is_(None))
                .values(**values)
            )
            if changed.rowcount == 0:
                raise UnknownName(f"there is no active API key named {name}")

    def _insert(
        self, connection: Connection, name: str, public_id: str, secret: str, rate: RateLimit
    ) -> int:
        insert = sa.insert(API_KEYS).values(
            name=name,
            public_id=public_id,
            secret_sha256=hash_secret(secret),
            created_at_s=int(self._clock()),
            balance=0,
            rate_per_s=rate.per_s,
            rate_burst=rate.burst,
        )
        return int(connection.execute(insert.returning(API_KEYS.c.id)).scalar_one())


def _build_find() -> sa.Select[*tuple[Any, ...]]:
    """Build the query of `verify`, with the parameters `public_id` and `secret_sha256`."""
    columns, near = API_KEYS.c, API_KEYS.alias()
    public_id: sa.BindParameter[str] = sa.bindparam("public_id")
    nearest = (
        sa.select(near.c.id)
        .where(near.c.public_id <= public_id)
        .order_by(near.c.public_id.desc())
        .limit(1)
    )
    return sa.select(API_KEYS).where(
        columns.id == nearest.scalar_subquery(),
        columns.secret_sha256 == sa.bindparam("secret_sha256"),  # first: it fails alike for both
        columns.public_id == public_id,
        columns.revoked_at_s.is_(None),
    )


def hash_secret(secret: str) -> str:
    """Return the stored form of a secret: 64 hexadecimal digits."""
    return sha256(secret.encode()).hexdigest()


def check_name(name: str) -> None:
    """Raise InvalidName for a name that no key may have."""
    if _NAME.fullmatch(name) is None:
        raise InvalidName(
            f"{name!r} is no name for an API key: 1 to 64 letters, digits and . _ @ -, "
            "beginning with a letter or digit"
        )
