"""Make, parse and hash the secrets of API keys, and build the query that finds a key by one."""

import re
import secrets
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa

from upscaled.state.errors import InvalidSecret
from upscaled.state.schema import API_KEYS

SECRET_PREFIX: Final = "upk_"  # noqa: S105  (scanners find a leaked key by it)
_SECRET = re.compile(r"upk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


def make_secret() -> str:
    """Return a new secret: `upk_`, a public id of 64 bits and 256 random bits."""
    return f"{SECRET_PREFIX}{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"


def read_id(secret: str) -> str | None:
    """Return the public id in a secret; None if it does not have the form of a secret."""
    match = _SECRET.fullmatch(secret)
    return None if match is None else match[1]


def secret_columns(secret: str) -> dict[str, str]:
    """Return the values of the columns that store a secret.

    Raises:
        InvalidSecret: it does not have the form of an API key.
    """
    public_id = read_id(secret)
    if public_id is None:
        raise InvalidSecret("the secret does not have the form of an API key")
    return {"public_id": public_id, "secret_sha256": hash_secret(secret)}


def hash_secret(secret: str) -> str:
    """Return the stored form of a secret: 64 hexadecimal digits."""
    return sha256(secret.encode()).hexdigest()


def build_find(secrets_table: sa.Table) -> sa.Select[*tuple[Any, ...]]:
    """Build a query of `verify`, with the parameters `public_id`, `secret_sha256` and `now_s`.

    Args:
        secrets_table: API_KEYS, or FORMER_SECRETS, whose secrets are valid only for a time.
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
