"""What `auto` chooses by, once for all front ends of a database.

    auto_choice         the choice that holds
    holders.auto_plans  the plans that a front end works by, beside its lease

The first front end writes what its workers measured, and the others adopt it, so that unlike
machines make the same picture by the same model. One whose models or settings differ must not
answer, unless no living front end works by what is stored: then it is the first one again.
"""

import json
from typing import Final

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy import Connection

from upscaled.state.database import NOW_S, Database, database_time_s
from upscaled.state.holder import Holder
from upscaled.state.lease import DEAD_AFTER_S
from upscaled.state.schema import AUTO_CHOICE, HOLDERS
from upscaled.upscale.model_choice import AutoChoice, Rung

_ONLY_ROW: Final = 1
_LADDERS: Final[TypeAdapter[dict[int, tuple[Rung, ...]]]] = TypeAdapter(dict[int, tuple[Rung, ...]])


class SharedAutoChoice:
    """The choice of one database, for any thread and any front end."""

    def __init__(self, database: Database, holder: Holder) -> None:
        self._database = database
        self._holder = holder

    def read(self) -> AutoChoice | None:
        """Return the stored choice; None before any front end has written one.

        Raises:
            DatabaseFailed: the database does not work.
        """
        with self._database.read() as connection:
            return _read(connection)

    def settle(self, own: AutoChoice) -> AutoChoice:
        """Return the choice that holds: the stored one, else this front end's own, stored now.

        A stored choice of other plans is replaced where no other living front end works by it.
        From then on this front end counts as one that works by its plans.

        Raises:
            DatabaseFailed, FolderUnusable: the database does not work.
        """
        holder_id = self._holder.id
        with self._database.write() as connection:
            self._lock(connection)
            stored = _read(connection)
            if stored is None or (
                stored.plans != own.plans and not self._is_used(connection, stored, holder_id)
            ):
                stored = own
                _write(connection, own)
            if stored.plans == own.plans:
                _mark(connection, holder_id, own)
            return stored

    def confirm(self, own: AutoChoice) -> AutoChoice | None:
        """Return the stored choice as `read`, and go on to count as one that works by its plans.

        Raises:
            DatabaseFailed, FolderUnusable: the database does not work.
        """
        holder_id = self._holder.id  # another one after an outage
        with self._database.write() as connection:
            _mark(connection, holder_id, own)
            return _read(connection)

    def reset(self) -> bool:
        """Delete the stored choice, so that the next front end that starts writes its own.

        Those that run keep theirs until then.

        Returns:
            Whether there was one.

        Raises:
            DatabaseFailed: the database does not work.
        """
        with self._database.write() as connection:
            return bool(connection.execute(sa.delete(AUTO_CHOICE)).rowcount)

    def _lock(self, connection: Connection) -> None:
        """Let one front end after the other decide, also while there is no row to be locked."""
        if self._database.is_server:
            connection.execute(sa.text("LOCK TABLE auto_choice IN SHARE ROW EXCLUSIVE MODE"))

    def _is_used(self, connection: Connection, stored: AutoChoice, holder_id: str) -> bool:
        """Return whether another front end works by the stored plans; on SQLite there is none."""
        if not self._database.is_server:
            return False
        users = sa.select(sa.func.count()).where(
            HOLDERS.c.id != holder_id,
            HOLDERS.c.auto_plans == _dump_plans(stored),
            HOLDERS.c.seen_at_s >= NOW_S - DEAD_AFTER_S,
        )
        return bool(connection.execute(users).scalar_one())


def _read(connection: Connection) -> AutoChoice | None:
    query = sa.select(AUTO_CHOICE.c.plans, AUTO_CHOICE.c.ladders)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    plans = {int(scale): str(plan) for scale, plan in json.loads(row.plans).items()}
    return AutoChoice(plans=plans, ladders=_LADDERS.validate_json(row.ladders))


def _mark(connection: Connection, holder_id: str, own: AutoChoice) -> None:
    """Note beside its lease what a front end works by, where that is not noted yet."""
    plans = _dump_plans(own)
    is_new = sa.or_(HOLDERS.c.auto_plans.is_(None), HOLDERS.c.auto_plans != plans)
    mark = sa.update(HOLDERS).where(HOLDERS.c.id == holder_id, is_new)
    connection.execute(mark.values(auto_plans=plans))


def _write(connection: Connection, choice: AutoChoice) -> None:
    connection.execute(sa.delete(AUTO_CHOICE))
    connection.execute(
        sa.insert(AUTO_CHOICE).values(
            id=_ONLY_ROW,
            plans=_dump_plans(choice),
            ladders=_LADDERS.dump_json(dict(choice.ladders)).decode(),
            written_at_s=sa.cast(sa.func.round(database_time_s(connection)), sa.BigInteger),
        )
    )


def _dump_plans(choice: AutoChoice) -> str:
    """Return the plans as text that is equal where they are."""
    return json.dumps({str(scale): choice.plans[scale] for scale in sorted(choice.plans)})
