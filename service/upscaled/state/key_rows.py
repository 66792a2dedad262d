"""Read the rows of API keys, check the values that a key may be given, and make their secrets.

A key that names no scope may do everything, also what a later version adds.
"""

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, TypedDict, get_args

import sqlalchemy as sa
from sqlalchemy import Row

from upscaled.state.audit import Detail
from upscaled.state.errors import InvalidValue
from upscaled.state.rate import AS_SET, RateLimit
from upscaled.state.schema import API_KEYS

LATEST_END_S: Final = 253_402_300_799
"""The last second of the year 9999, UTC, in seconds since 1970."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

Scope = Literal["upscale", "jobs", "credits"]
"""upscale: send images, and watch their progress. jobs: have them become jobs, and list, read and
cancel these. credits: read the balance."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

Scopes = frozenset[str] | None
"""The scopes of a key; None: all."""

SECRET_PREFIX: Final = "upk_"  # noqa: S105  (scanners find a leaked key by it)
_SECRET: Final = re.compile(r"upk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key of a request whose secret was verified.

    balance: credits, without those on hold. rate: its own. scopes: what it may be used for.
    """

    id: int
    name: str
    balance: int = 0
    rate: RateLimit = AS_SET
    scopes: Scopes = None

    def may(self, scope: Scope) -> bool:
        return self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class ListedKey:
    """The fields of a key that may be shown; `shown_secret` is its beginning, `upk_0123..._...`."""

    id: int
    name: str
    shown_secret: str
    created_at_s: int
    revoked_at_s: int | None
    expires_at_s: int | None
    balance: int
    rate: RateLimit
    scopes: Scopes

    def state_at(self, now_s: float) -> Literal["active", "expired", "revoked"]:
        """Return whether the key is valid at a time, in seconds since 1970, or why it is not."""
        if self.revoked_at_s is not None:
            return "revoked"
        is_expired = self.expires_at_s is not None and self.expires_at_s <= now_s
        return "expired" if is_expired else "active"


class KeyChanges(TypedDict, total=False):
    """Changes of a key, with values as of `Keys.create`; fields left out stay as they are."""

    name: str
    rate_per_s: float | None
    rate_burst: int | None
    expires_at_s: int | None
    scopes: Scopes


def check_expiry(expires_at_s: int | None, now_s: float) -> None:
    """Raise InvalidValue for an end in the past, or after 9999, the last year of `datetime`."""
    if expires_at_s is None:
        return
    if expires_at_s <= now_s:
        raise InvalidValue("the key would have expired already")
    if expires_at_s > LATEST_END_S:
        raise InvalidValue("the key would expire after the year 9999: let it never expire")


def check_changes(changes: KeyChanges, now_s: float) -> None:
    """Check the values of a change; the error of one that is out of range names it."""
    if "name" in changes:
        check_name(changes["name"])
    RateLimit(changes.get("rate_per_s"), changes.get("rate_burst")).check()
    check_expiry(changes.get("expires_at_s"), now_s)
    check_scopes(changes.get("scopes"))


def describe_changes(changes: KeyChanges) -> dict[str, Detail]:
    """Return the details of a change for the audit log; a removed value as what applies instead."""
    shown: dict[str, Detail] = {}
    if "rate_per_s" in changes:
        shown["rate"] = changes["rate_per_s"] or "settings"
    if "rate_burst" in changes:
        shown["burst"] = changes["rate_burst"] or "settings"
    if "expires_at_s" in changes:
        shown["expires_at_s"] = changes["expires_at_s"] or "never"
    if "scopes" in changes:
        shown["scopes"] = write_scopes(changes["scopes"]) or "all"
    return shown


def read_key(row: Row[*tuple[Any, ...]]) -> ApiKey:
    rate = RateLimit(row.rate_per_s, row.rate_burst)
    return ApiKey(row.id, row.name, row.balance, rate, read_scopes(row.scopes))


def read_listed(row: Row[*tuple[Any, ...]]) -> ListedKey:
    """Return what may be shown of the key of a row."""
    return ListedKey(
        id=row.id,
        name=row.name,
        shown_secret=f"{SECRET_PREFIX}{row.public_id}_...",
        created_at_s=row.created_at_s,
        revoked_at_s=row.revoked_at_s,
        expires_at_s=row.expires_at_s,
        balance=row.balance,
        rate=RateLimit(row.rate_per_s, row.rate_burst),
        scopes=read_scopes(row.scopes),
    )


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_name(name: str, kind: str = "an API key") -> None:
    """Raise InvalidValue for a name that no API key may have, nor an administrator."""
    if not is_name(name):
        raise InvalidValue(
            f"{name!r} is no name for {kind}: 1 to 64 letters, digits and . _ @ -, "
            "beginning with a letter or digit"
        )


def check_scopes(scopes: Scopes) -> None:
    """Raise InvalidValue for none at all, or for one that there is not."""
    if scopes is None:
        return
    unknown = sorted(scopes - set(SCOPES))
    if unknown or not scopes:
        what = f"{unknown[0]!r} is no scope" if unknown else "no scope at all"
        raise InvalidValue(f"{what}: name one or more of {', '.join(SCOPES)}")


def write_scopes(scopes: Scopes) -> str | None:
    """Return the column of scopes, in the order of `SCOPES`; None for all."""
    return None if scopes is None else ",".join(order_scopes(scopes))


def read_scopes(column: str | None) -> Scopes:
    return None if column is None else frozenset(column.split(","))


def order_scopes(scopes: Collection[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]


def make_secret() -> str:
    """Return a new secret: `upk_`, a public id of 64 bits and 256 random bits."""
    return f"{SECRET_PREFIX}{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def read_id(secret: str) -> str | None:
    """Return the public id in a secret; None if it does not have the form of a secret."""
    match = _SECRET.fullmatch(secret)
    return None if match is None else match[1]


def secret_columns(secret: str) -> dict[str, str]:
    """Return the values of the columns that store a secret, or raise `InvalidValue`."""
    public_id = read_id(secret)
    if public_id is None:
        raise InvalidValue("the secret does not have the form of an API key")
    return {"public_id": public_id, "secret_sha256": hash_secret(secret)}


def hash_secret(secret: str) -> str:
    """Return the stored form of a secret: 64 hexadecimal digits."""
    return sha256(secret.encode()).hexdigest()


def build_find(secrets_table: sa.Table) -> sa.Select[*tuple[Any, ...]]:
    """Build a query of `verify`, with the parameters `public_id`, `secret_sha256` and `now_s`.

    Secrets of FORMER_SECRETS are valid only for a time.
    """
    columns, near = secrets_table.c, secrets_table.alias()
    (row_id,), (near_id,) = secrets_table.primary_key, near.primary_key
    now_s: sa.BindParameter[float] = sa.bindparam("now_s")
    public_id: sa.BindParameter[str] = sa.bindparam("public_id")
    nearest = (
        sa.select(near_id)
        .where(near.c.public_id <= public_id)
        .order_by(near.c.public_id.desc())
        .limit(1)
    )
    query = sa.select(API_KEYS).where(
        row_id == nearest.scalar_subquery(),
        columns.secret_sha256 == sa.bindparam("secret_sha256"),  # first: it fails alike for both
        columns.public_id == public_id,
        API_KEYS.c.revoked_at_s.is_(None),
        sa.func.coalesce(API_KEYS.c.expires_at_s > now_s, sa.true()),
    )
    if secrets_table is API_KEYS:
        return query
    return query.where(columns.key_id == API_KEYS.c.id, columns.valid_until_s > now_s)
