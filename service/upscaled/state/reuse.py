"""Results that may be used again: one API key sends the same picture for the same result."""

import json
from dataclasses import asdict, dataclass
from typing import Final

import sqlalchemy as sa

from upscaled.state.database import Database, database_time_s, insert_into
from upscaled.state.schema import REUSABLE_RESULTS

_KEY: Final = (REUSABLE_RESULTS.c.key_id, REUSABLE_RESULTS.c.fingerprint)


@dataclass(frozen=True, slots=True)
class ReusableResult:
    """A stored result and what made it; `file_name` is of the store of results."""

    file_name: str
    media_type: str
    width_px: int
    height_px: int
    model: str
    label: str
    tempered_with: str


class ReusableResults:
    """The results of one database by key and fingerprint, for any thread and any process.

    A row may outlive its file, so a result that is found must still be looked for in its store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key_id: int, fingerprint: str) -> ReusableResult | None:
        row = REUSABLE_RESULTS.c
        query = sa.select(row.result).where(row.key_id == key_id, row.fingerprint == fingerprint)
        with self._database.read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else ReusableResult(**json.loads(found))

    def remember(self, key_id: int, fingerprint: str, result: ReusableResult) -> None:
        """Add a result that was stored just now, in place of an earlier one of the same request."""
        with self._database.write() as connection:
            values = {
                "result": json.dumps(asdict(result)),
                "stored_at_s": database_time_s(connection),
            }
            added = insert_into(connection, REUSABLE_RESULTS).values(
                key_id=key_id, fingerprint=fingerprint, **values
            )
            connection.execute(added.on_conflict_do_update(index_elements=_KEY, set_=values))

    def remove_expired(self, lifetime_s: float) -> int:
        """Remove results that were stored more than `lifetime_s` ago; return how many."""
        with self._database.write() as connection:
            oldest_s = database_time_s(connection) - lifetime_s
            is_expired = REUSABLE_RESULTS.c.stored_at_s < oldest_s
            return connection.execute(sa.delete(REUSABLE_RESULTS).where(is_expired)).rowcount
