"""Requests under way at the front ends of one PostgreSQL, so that each can show all of them."""

from dataclasses import dataclass

import sqlalchemy as sa

from upscaled.state.database import NOW_S, Database, insert_into
from upscaled.state.schema import UNDER_WAY


@dataclass(frozen=True, slots=True)
class RequestUnderWay:
    """A request by its key and its client's id, and the front end that shows it to the token."""

    key_id: int
    request_id: str
    front_end_url: str
    token: str


class UnderWay:
    """The requests (at most `max_age_s` old) at all front ends of a PostgreSQL; none on SQLite."""

    def __init__(self, database: Database, max_age_s: float) -> None:
        self._database = database
        self._max_age_s = max_age_s

    def add(self, request: RequestUnderWay) -> None:
        """Add a request; it replaces one of the same id."""
        values = {
            "front_end_url": request.front_end_url,
            "token": request.token,
            "begun_at_s": NOW_S,
        }
        names = [UNDER_WAY.c.key_id, UNDER_WAY.c.request_id]
        with self._database.autocommit() as connection:
            added = insert_into(connection, UNDER_WAY).values(
                key_id=request.key_id, request_id=request.request_id, **values
            )
            connection.execute(added.on_conflict_do_update(index_elements=names, set_=values))

    def remove(self, request: RequestUnderWay) -> None:
        """Remove a request that is over, unless a later one has its id."""
        is_same = sa.and_(
            UNDER_WAY.c.key_id == request.key_id,
            UNDER_WAY.c.request_id == request.request_id,
            UNDER_WAY.c.token == request.token,
        )
        with self._database.autocommit() as connection:
            connection.execute(sa.delete(UNDER_WAY).where(is_same))

    def find(self, key_id: int, request_id: str) -> RequestUnderWay | None:
        columns = UNDER_WAY.c
        query = sa.select(columns.front_end_url, columns.token).where(
            columns.key_id == key_id, columns.request_id == request_id
        )
        with self._database.autocommit() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else RequestUnderWay(key_id, request_id, *row)

    def sweep(self) -> None:
        """Remove what front ends left that died."""
        if not self._database.is_server:
            return
        with self._database.autocommit() as connection:
            is_old = UNDER_WAY.c.begun_at_s < NOW_S - int(self._max_age_s)
            connection.execute(sa.delete(UNDER_WAY).where(is_old))
