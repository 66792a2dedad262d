"""Store the thresholds by which `auto` chooses models, once for all front ends of a database.

    auto_choice         the choice in force: thresholds, and the models and settings behind them
    holders.auto_plans  the models and settings that a front end uses, beside its lease

The first front end stores what its workers measured, and the others adopt it, so that machines of
different speed use the same model for the same picture. A front end whose models or settings
differ must not answer requests, unless no living front end uses the stored ones: then it replaces
them, as the first one would.
"""

import json
from typing import Final

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from upscaled.state.database import NOW_S, Database, database_time_s
from upscaled.state.errors import UnreadableChoice
from upscaled.state.holder import Holder
from upscaled.state.lease import DEAD_AFTER_S
from upscaled.state.schema import AUTO_CHOICE, HOLDERS
from upscaled.upscale.model_choice import AutoChoice, Rung

_ONLY_ROW: Final = 1
_PLANS: Final[TypeAdapter[dict[int, str]]] = TypeAdapter(dict[int, str])
_LADDERS: Final[TypeAdapter[dict[int, tuple[Rung, ...]]]] = TypeAdapter(dict[int, tuple[Rung, ...]])


class SharedAutoChoice:
    """The stored choice of one database; every method may be called from any thread."""

    def __init__(self, database: Database, holder: Holder) -> None:
        self._database = database
        self._holder = holder

    def read(self) -> AutoChoice | None:
        """Return the stored choice; None before any front end has written one.

        Raises:
            UnreadableChoice: it is damaged, or another version's: only `reset` helps.
        """
        with self._database.read() as connection:
            return _read(connection)

    def settle(self, own: AutoChoice) -> AutoChoice:
        """Return the stored choice; if there is none, store this front end's own and return that.

        A stored choice of other plans is replaced if no other living front end uses it. From then
        on this front end counts as one that uses its plans. Raises as `read` does.
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
        """Return the stored choice as `read` does, and still count as a user of these plans."""
        holder_id = self._holder.id  # another one after an outage
        with self._database.write() as connection:
            _mark(connection, holder_id, own)
            return _read(connection)

    def reset(self) -> bool:
        """Delete the stored choice, for front ends that start later; return if there was one."""
        with self._database.write() as connection:
            return bool(connection.execute(sa.delete(AUTO_CHOICE)).rowcount)

    def _lock(self, connection: Connection) -> None:
        """Lock the table, so that front ends decide one after the other, even without a row."""
        if self._database.is_server:
            connection.execute(sa.text("LOCK TABLE auto_choice IN SHARE ROW EXCLUSIVE MODE"))

    def _is_used(self, connection: Connection, stored: AutoChoice, holder_id: str) -> bool:
        """Return whether another front end uses the stored plans; on SQLite there is none."""
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
    try:
        plans = _PLANS.validate_json(row.plans)
        return AutoChoice(plans=plans, ladders=_LADDERS.validate_json(row.ladders))
    except ValidationError as error:
        reason = error.errors(include_url=False, include_context=False)[0]["msg"]
        raise UnreadableChoice(f"the stored thresholds of auto cannot be read: {reason}") from None


def _mark(connection: Connection, holder_id: str, own: AutoChoice) -> None:
    """Note the plans that a front end uses beside its lease, unless they stand there already."""
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
