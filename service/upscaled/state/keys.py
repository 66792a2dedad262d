"""Create, verify, list and revoke API keys, which are stored only as a hash."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from upscaled.state import key_rows
from upscaled.state.audit import SERVICE_ITSELF, AuditAction, AuditLog, Detail
from upscaled.state.clocks import Clocks
from upscaled.state.database import Database
from upscaled.state.errors import InvalidValue, NameTaken
from upscaled.state.ledger import check_amount, grant, lock_active
from upscaled.state.rate import AS_SET, RateLimit
from upscaled.state.schema import API_KEYS, FORMER_SECRETS

LOCAL_KEY_NAME: Final = "local"
"""Key that requests without one count as, where `UPSCALED_AUTH` is none."""
MAX_KEEP_S: Final = 90 * 86_400
"""Longest that a former secret stays valid; a longer time is a second key."""


class Keys:
    """The API keys of one database, for any thread.

    A secret is `upk_`, a public id of 64 bits and 256 random bits. Its SHA-256 is stored: with
    that much randomness a slow hash would protect nothing, and requests with wrong keys could
    overload the service.

    Methods that take a name raise `UnknownName` where no active key has it, and those that set a
    value `InvalidValue` where no key may have it, `NameTaken` where an active key has the new name.
    """

    def __init__(self, database: Database, clocks: Clocks, audit: AuditLog) -> None:
        self._database = database
        self._clocks = clocks
        self._audit = audit
        self._finds = tuple(key_rows.build_find(table) for table in (API_KEYS, FORMER_SECRETS))

    def create(
        self,
        name: str,
        *,
        credits: int = 0,
        rate: RateLimit = AS_SET,
        secret: str | None = None,
        expires_at_s: int | None = None,
        scopes: key_rows.Scopes = None,
        by: str = SERVICE_ITSELF,
    ) -> str:
        """Make a key and return its secret, which cannot be read again.

        Names are 1 to 64 of letters, digits and `._@-`, and unique among the active keys; a name
        may be used again after a revoke, without the credits.

        Args:
            secret: in the form of our keys; None: a new one.
            expires_at_s: when the key ends, in seconds since 1970; None: never.
            scopes: what it may be used for; None: everything.
            by: the actor for the audit log, as in all methods that change something.

        Raises:
            NameTaken, or the error of a value that is out of range.
        """
        key_rows.check_name(name)
        check_amount(credits, smallest=0)
        rate.check()
        key_rows.check_scopes(scopes)
        key_rows.check_expiry(expires_at_s, self._clocks.wall())
        secret = key_rows.make_secret() if secret is None else secret
        columns = {
            "name": name,
            **key_rows.secret_columns(secret),
            "rate_per_s": rate.per_s,
            "rate_burst": rate.burst,
            "expires_at_s": expires_at_s,
            "scopes": key_rows.write_scopes(scopes),
        }
        try:
            self._insert(columns, credits, by)
        except IntegrityError:
            raise NameTaken(f"an API key named {name} is already active") from None
        return secret

    def _insert(self, columns: Mapping[str, Any], credits: int, by: str) -> None:
        """Insert the row of a new key, with its credits and the entry of the audit log."""
        now_s = int(self._clocks.wall())
        insert = sa.insert(API_KEYS).values(created_at_s=now_s, balance=0, **columns)
        with self._database.write() as connection:
            key_id = int(connection.execute(insert.returning(API_KEYS.c.id)).scalar_one())
            if credits:
                grant(connection, key_id, credits, at_s=now_s)
            self._audit.note(
                connection,
                by,
                "keys create",
                columns["name"],
                key_id,
                credits=credits,
                rate=columns["rate_per_s"],
                burst=columns["rate_burst"],
                expires_at_s=columns["expires_at_s"],
                scopes=columns["scopes"],
            )

    def verify(self, secret: str) -> key_rows.ApiKey | None:
        """Return the active key that `secret` belongs to, or None.

        Reads the database each time, so that a revoke by another process holds at once. Of an
        unknown id the row of the next smaller one is read and its hash compared, so its duration
        does not show which ids exist. The database may compare hashes byte by byte: no client can
        choose the bytes of a SHA-256.
        """
        public_id = key_rows.read_id(secret)
        if public_id is None:
            return None
        parameters = {
            "public_id": public_id,
            "secret_sha256": key_rows.hash_secret(secret),
            "now_s": self._clocks.wall(),
        }
        with self._database.read() as connection:
            found = (connection.execute(find, parameters).one_or_none() for find in self._finds)
            row = next(filter(None, found), None)
        if row is None:
            return None
        return key_rows.read_key(row)

    def find(self, name: str) -> key_rows.ApiKey | None:
        """Return the active key of a name, or None. The caller has authenticated the request."""
        of_name = sa.select(API_KEYS).where(
            API_KEYS.c.name == name,
            API_KEYS.c.revoked_at_s.is_(None),
            sa.func.coalesce(API_KEYS.c.expires_at_s > self._clocks.wall(), sa.true()),
        )
        with self._database.read() as connection:
            row = connection.execute(of_name).one_or_none()
        return None if row is None else key_rows.read_key(row)

    def make_local(self) -> None:
        """Make the key `local` where no active key has the name; its secret is thrown away."""
        if self.find(LOCAL_KEY_NAME) is None:
            with suppress(NameTaken):  # by another front end that starts now, or it has expired
                self.create(LOCAL_KEY_NAME)

    def list(
        self, *, after_id: int = 0, first: int | None = None
    ) -> tuple[key_rows.ListedKey, ...]:
        """Return every key ever made, revoked ones too, oldest first.

        Only those that were made after the key `after_id`, and of these only the `first` so many.
        """
        query = sa.select(API_KEYS).where(API_KEYS.c.id > after_id).order_by(API_KEYS.c.id)
        with self._database.read() as connection:
            rows = connection.execute(query.limit(first)).all()
        return tuple(map(key_rows.read_listed, rows))

    def names(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.list() if key.revoked_at_s is None)

    def is_empty(self) -> bool:
        """Return whether no key but `local` was ever made; a revoked key counts as made."""
        others = sa.select(API_KEYS.c.id).where(API_KEYS.c.name != LOCAL_KEY_NAME).limit(1)
        with self._database.read() as connection:
            return connection.execute(others).first() is None

    def revoke(self, name: str, *, by: str = SERVICE_ITSELF) -> None:
        """End an active key: from now on, in every process, its secrets are unknown."""
        self._update(name, {"revoked_at_s": int(self._clocks.wall())}, by, "keys revoke")

    def set_rate(self, name: str, rate: RateLimit, *, by: str = SERVICE_ITSELF) -> None:
        """Give an active key a rate of its own, in every process from its next request on."""
        rate.check()
        values = {"rate_per_s": rate.per_s, "rate_burst": rate.burst}
        self._update(name, values, by, "keys rate", rate=rate.per_s, burst=rate.burst)

    def change(
        self, name: str, changes: key_rows.KeyChanges, *, by: str = SERVICE_ITSELF
    ) -> key_rows.ListedKey:
        """Change a key that was not revoked, all or nothing, and return it as it then is.

        It holds in every process from now on; one that has expired is active with a later end.
        """
        key_rows.check_changes(changes, self._clocks.wall())
        columns: dict[str, Any] = {**changes}
        if "scopes" in changes:
            columns["scopes"] = key_rows.write_scopes(changes["scopes"])
        new_name, shown = changes.get("name", name), key_rows.describe_changes(changes)
        try:
            with self._database.write() as connection:
                (key_id,) = lock_active(connection, name)
                of_key = API_KEYS.c.id == key_id
                if columns:
                    connection.execute(sa.update(API_KEYS).where(of_key).values(columns))
                if new_name != name:
                    self._audit.note(connection, by, "keys rename", name, key_id, to=new_name)
                if shown:
                    self._audit.note(connection, by, "keys set", new_name, key_id, **shown)
                return key_rows.read_listed(
                    connection.execute(sa.select(API_KEYS).where(of_key)).one()
                )
        except IntegrityError:
            raise NameTaken(f"an API key named {new_name} is already active") from None

    def rotate(self, name: str, *, keep_s: int, by: str = SERVICE_ITSELF) -> str:
        """Give an active key a new secret and return it, which cannot be read again.

        The one that it had stays valid for `keep_s`, 0 to `MAX_KEEP_S`; earlier ones no longer.
        """
        if not 0 <= keep_s <= MAX_KEEP_S:
            raise InvalidValue(f"{keep_s} seconds: must be 0 to {MAX_KEEP_S}")
        secret = key_rows.make_secret()
        with self._database.write() as connection:
            (key_id,) = lock_active(connection, name, is_secret_new=True)
            of_key = API_KEYS.c.id == key_id
            had = connection.execute(sa.select(API_KEYS).where(of_key)).one()
            self._keep_until(connection, had, int(self._clocks.wall()) + keep_s)
            connection.execute(
                sa.update(API_KEYS).where(of_key).values(**key_rows.secret_columns(secret))
            )
            self._audit.note(connection, by, "keys rotate", name, key_id, keep_s=keep_s)
        return secret

    @staticmethod
    def _keep_until(connection: Connection, key: Row[*tuple[Any, ...]], until_s: int) -> None:
        """Let a key's present secret, and all former ones, end at a time or before."""
        former = FORMER_SECRETS.c
        connection.execute(
            sa.update(FORMER_SECRETS)
            .where(former.key_id == key.id, former.valid_until_s > until_s)
            .values(valid_until_s=until_s)
        )
        connection.execute(
            sa.insert(FORMER_SECRETS).values(
                public_id=key.public_id,
                key_id=key.id,
                secret_sha256=key.secret_sha256,
                valid_until_s=until_s,
            )
        )

    def _update(
        self,
        name: str,
        values: Mapping[str, str | float | None],
        by: str,
        action: AuditAction,
        **details: Detail,
    ) -> None:
        """Change columns of an active key; raise UnknownName if there is none of that name."""
        with self._database.write() as connection:
            (key_id,) = lock_active(connection, name)
            connection.execute(sa.update(API_KEYS).where(API_KEYS.c.id == key_id).values(values))
            self._audit.note(connection, by, action, name, key_id, **details)
