"""Leases of the front ends of one PostgreSQL, and the leader among them.

A front end that holds credits has a row in `holders` and renews it, by the database's clock. The
leader, who has an advisory lock as long as its session lives, declares those dead that have not,
but only once it has reached the database without a gap for the time of a lease, and the clock was
not set: else all look expired. One declared dead in error sees it at its next hold or renewal and
goes on under a new id; its old holds can no longer be captured.

One that ended on this machine is known by its file (`FileHolder`): what it left is not waited for.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.logs import event
from upscaled.state.clocks import Clocks, DatabaseClock
from upscaled.state.database import NOW_S, Database
from upscaled.state.errors import DatabaseFailed
from upscaled.state.holder import FileHolder, Holders
from upscaled.state.left_leases import is_of_processes, make_lease_id
from upscaled.state.schema import HOLDERS

RENEW_EVERY_S: Final = 10.0
DEAD_AFTER_S: Final = 60
"""A lease outlasts five renewals: a server that restarts, or a cut of its connection for 30 s."""
_LARGEST_GAP_S: Final = 30.0
"""Time between two renewals of the leader, beyond which the database was away."""
_CLOSE_WITHIN_S: Final = 5.0
_LEADERSHIP: Final = 7_302_118_844_611_210
"""Key of the leader's advisory lock: any number that all our processes share."""

_log: Final = logging.getLogger(__name__)


class LeasedHolder:
    """A holder by a row that a thread renews, on a connection of its own.

    That connection also has the leader's lock, so losing it is losing the lead.
    """

    def __init__(
        self,
        database: Database,
        clocks: Clocks,
        database_clock: DatabaseClock,
        process: FileHolder,
    ) -> None:
        """Hold by a row in the database; `process` proves to others on this machine that it ran."""
        self._database = database
        self._process = process
        self._clocks = clocks
        self._database_clock = database_clock
        self._lock = threading.Lock()
        self._id: str | None = None
        self._renewing = threading.Lock()
        self._session: Connection | None = None
        self._leads = False
        self._renewed_at_s = self._reached_since_s = float("-inf")
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    @property
    def id(self) -> str:
        self._start()
        with self._lock:
            if self._id is None:
                holder_id = make_lease_id(self.process_id)
                with self._database.write() as connection:
                    connection.execute(sa.insert(HOLDERS).values(id=holder_id, seen_at_s=NOW_S))
                self._id = holder_id
            return self._id

    @property
    def process_id(self) -> str:
        return self._process.process_id

    def forget(self, holder_id: str) -> None:
        """Replace the id where a hold has found that it was declared dead, see `Holder`."""
        with self._lock:
            if self._id == holder_id:
                self._id = None

    @contextmanager
    def survey(self) -> Iterator[Holders]:
        """List the living and the dead front ends; delete the rows of the dead after the block."""
        with self._process.survey() as on_this_machine:
            ended = on_this_machine.ended
            if ended:
                declare = sa.update(HOLDERS).where(is_of_processes(HOLDERS.c.id, ended))
                with self._database.write() as connection:
                    connection.execute(declare.values(seen_at_s=None))
            with self._database.read() as connection:
                rows = connection.execute(sa.select(HOLDERS.c.id, HOLDERS.c.seen_at_s)).all()
            dead = [row.id for row in rows if row.seen_at_s is None]
            yield Holders(dead, [row.id for row in rows if row.seen_at_s is not None], ended)
            if dead:
                with self._database.write() as connection:
                    connection.execute(sa.delete(HOLDERS).where(HOLDERS.c.id.in_(dead)))

    def find_elsewhere(self) -> list[str]:
        """Return the living front ends without a file here, but not those of earlier versions."""
        row = HOLDERS.c
        is_other = sa.and_(row.id != self._id, row.seen_at_s >= NOW_S - DEAD_AFTER_S)
        with self._database.read() as connection:
            holder_ids = connection.execute(sa.select(row.id).where(is_other)).scalars().all()
        process_ids = [each.partition(".")[0] for each in holder_ids if "." in each]
        return [each for each in process_ids if not self._process.has_file(each)]

    def lead(self) -> bool:
        """Return whether this front end is the leader, and contend for it from now on."""
        self._start()
        return self._leads

    def renew(self) -> None:
        """Renew the lease, contend for the lead, and as the leader declare others dead."""
        with self._renewing:
            try:
                with self._database.translating_failures():
                    session = self._session = self._session or self._database.connect_apart()
                    self._renew(session)
            except BaseException:
                self._close_session()
                raise

    def close(self) -> None:
        """Count as dead from now on, so that any process may give back what is still on hold."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_WITHIN_S)
        if self._thread is None or not self._thread.is_alive():
            self._close_session()
        self._process.close()
        with self._lock:
            holder_id, self._id = self._id, None
        if holder_id is not None:
            with self._database.write() as connection:
                ended = sa.update(HOLDERS).where(HOLDERS.c.id == holder_id)
                connection.execute(ended.values(seen_at_s=None))

    def _renew(self, session: Connection) -> None:
        holder_id = self._id
        is_own = sa.and_(HOLDERS.c.id == holder_id, HOLDERS.c.seen_at_s.is_not(None))
        renewed = session.execute(sa.update(HOLDERS).where(is_own).values(seen_at_s=NOW_S))
        if holder_id is not None and renewed.rowcount == 0:
            self.forget(holder_id)
            fields = event("lease_lost", holder=holder_id)
            _log.warning("this front end had been declared dead; it continues", extra=fields)
        now_s = self._clocks.running()
        if now_s - self._renewed_at_s > _LARGEST_GAP_S:
            self._reached_since_s = now_s
        self._renewed_at_s = now_s
        is_steady = self._database_clock.has_run_steadily(session, DEAD_AFTER_S)
        if not self._leads:
            take = sa.select(sa.func.pg_try_advisory_lock(_LEADERSHIP))
            self._leads = bool(session.execute(take).scalar_one())
        if self._leads and is_steady and now_s - self._reached_since_s >= DEAD_AFTER_S:
            self._declare_dead(session)

    def _declare_dead(self, session: Connection) -> None:
        expired = HOLDERS.c.seen_at_s < NOW_S - DEAD_AFTER_S
        declare = sa.update(HOLDERS).where(expired).values(seen_at_s=None).returning(HOLDERS.c.id)
        for holder_id in session.execute(declare).scalars():
            fields = event("front_end_expired", holder=holder_id)
            _log.warning(
                "a front end has not renewed its lease for %s s", DEAD_AFTER_S, extra=fields
            )

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Renew until closed; of failures in a row the first is logged."""
        is_failing = False
        while not self._ending.is_set():
            try:
                self.renew()
                is_failing = False
            except DatabaseFailed as error:
                if not is_failing:
                    _log.warning("cannot renew the lease: %s", error, extra=event("lease_failed"))
                is_failing = True
            self._ending.wait(RENEW_EVERY_S)

    def _close_session(self) -> None:
        session, self._session, self._leads = self._session, None, False
        if session is not None:
            session.close()
