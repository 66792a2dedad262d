"""Read the rows of API keys, and check the values that a key may be given."""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from sqlalchemy import Row

from upscaled.state.audit import Detail
from upscaled.state.errors import InvalidExpiry, InvalidName
from upscaled.state.key_secrets import SECRET_PREFIX
from upscaled.state.rate import AS_SET, RateLimit
from upscaled.state.scopes import Scope, Scopes, check_scopes, read_scopes, write_scopes

LATEST_END_S: Final = 253_402_300_799
"""The last second of the year 9999, UTC, in seconds since 1970."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key of a request whose secret was verified.

    balance: its credits, without those on hold. rate: its own, where it has one. scopes: what it
    may be used for.
    """

    id: int
    name: str
    balance: int = 0
    rate: RateLimit = AS_SET
    scopes: Scopes = None

    def may(self, scope: Scope) -> bool:
        """Return whether the key may be used for this."""
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
    """Raise InvalidExpiry for an end in the past, or after 9999, the last year of `datetime`."""
    if expires_at_s is None:
        return
    if expires_at_s <= now_s:
        raise InvalidExpiry("the key would have expired already")
    if expires_at_s > LATEST_END_S:
        raise InvalidExpiry("the key would expire after the year 9999: let it never expire")


def check_changes(changes: KeyChanges, now_s: float) -> None:
    """Check the values of a change.

    Raises:
        InvalidName, InvalidRate, InvalidExpiry, InvalidScope: one is out of range.
    """
    if "name" in changes:
        check_name(changes["name"])
    RateLimit(changes.get("rate_per_s"), changes.get("rate_burst")).check()
    check_expiry(changes.get("expires_at_s"), now_s)
    check_scopes(changes.get("scopes"))


def describe_changes(changes: KeyChanges) -> dict[str, Detail]:
    """Return the details of a change for the audit log, without the name.

    A value that is removed is written as the one that applies instead, since entries omit None.
    """
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
    """Return the key of a row."""
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
    """Return whether a key may have this name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, owner: str = "an API key") -> None:
    """Raise InvalidName for a name that no API key may have, nor an administrator."""
    if not is_name(name):
        raise InvalidName(
            f"{name!r} is no name for {owner}: 1 to 64 letters, digits and . _ @ -, "
            "beginning with a letter or digit"
        )
