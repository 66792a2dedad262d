"""The credit ledger of a database: each delivered image is paid once, whatever fails.

    grant +n, take -n, and for each image
                    hold -1 ──> capture 0 ──> (grant +1, named refund-<request id>)
                            └─> release +1

`hold` comes before the work, `capture` when the result is stored, `release` when anything else
happened. The database lets one of the last two through for each hold, whatever is tried again: also
for a front end that was declared dead. A capture may be committed although its caller only sees
that the connection was lost: `give_back` then grants the credit again, once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from upscaled.state import ledger, server_ledger
from upscaled.state.audit import SERVICE_ITSELF, AuditLog, Detail
from upscaled.state.clocks import Clocks
from upscaled.state.database import Database
from upscaled.state.errors import DatabaseFailed, HoldReleased, StateError
from upscaled.state.holder import Holder, Holders
from upscaled.state.idempotency import is_answered
from upscaled.state.ledger import Discrepancy, Hold, PaidResult
from upscaled.state.pending import PendingReleases
from upscaled.state.schema import OPEN_HOLDS


@dataclass(frozen=True, slots=True)
class Retried:
    """The pending releases of one try: credits given back, and the failure that ended it."""

    released: int
    failure: Exception | None = None


class _Steps(Protocol):
    """The steps that settle a hold in this database: those of `ledger` or `server_ledger`."""

    def capture(
        self, connection: Connection, hold: Hold, paid: PaidResult | None, *, at_s: int
    ) -> bool:
        """Capture an open hold, and record the result it pays for; False if it is not open."""

    def release(self, connection: Connection, hold: Hold, *, at_s: int) -> bool:
        """Give the credit of an open hold back; return False if it is not open."""


class CreditLedger:
    """The credit ledger of one database, for any thread and any number of processes.

    max_hold_age_s: no request takes longer, so an older hold was forgotten and is given back, by a
    clock that cannot be set for this process's own, and by the wall clock only where a hold's
    process left no trace. pending: holds that could not be given back, for `retry_pending`.
    """

    def __init__(
        self,
        database: Database,
        holder: Holder,
        clocks: Clocks,
        audit: AuditLog,
        *,
        max_hold_age_s: float,
    ) -> None:
        self.pending = PendingReleases()
        self._database = database
        self._settling = database.autocommit if database.is_server else database.write
        self._steps: _Steps = ledger
        if database.is_server:
            self._steps = server_ledger
        self._holder = holder
        self._audit = audit
        self._clock: Callable[[], float] = clocks.wall
        self._running_clock = clocks.running
        # Request id to its hold and the time of the hold by the running clock.
        self._own: dict[str, tuple[Hold, float]] = {}
        self._max_hold_age_s = max_hold_age_s

    def balance(self, key_id: int) -> int:
        """Return a key's credits, without those on hold."""
        with self._database.read() as connection:
            return ledger.read_balance(connection, key_id)

    def show(self, name: str) -> int:
        """Return the credits of an active key, without those on hold, or raise `UnknownName`."""
        with self._database.read() as connection:
            return ledger.read_balance(connection, ledger.find_active(connection, name))

    def add(self, name: str, amount: int, *, by: str = SERVICE_ITSELF) -> int:
        """Grant credits to an active key and return its new balance; `by` is for the audit log.

        Raises:
            InvalidValue: the amount is not 1 to `MAX_GRANT`.
            UnknownName: no active key has that name.
        """
        ledger.check_amount(amount, smallest=1)
        with self._database.write() as connection:
            (key_id,) = ledger.lock_active(connection, name)
            ledger.grant(connection, key_id, amount, at_s=self._now_s())
            self._audit.note(connection, by, "credits add", name, key_id, credits=amount)
            return ledger.read_balance(connection, key_id)

    def take(self, name: str, amount: int, *, by: str = SERVICE_ITSELF) -> int:
        """Take credits from an active key, and return its new balance, as `add` gives them.

        More than the key has raises `InvalidValue` too.
        """
        ledger.check_amount(amount, smallest=1)
        with self._database.write() as connection:
            (key_id,) = ledger.lock_active(connection, name)
            ledger.take(connection, key_id, amount, at_s=self._now_s())
            self._audit.note(connection, by, "credits take", name, key_id, credits=amount)
            return ledger.read_balance(connection, key_id)

    def transfer(
        self, from_name: str, to_name: str, amount: int, *, by: str = SERVICE_ITSELF
    ) -> tuple[int, int]:
        """Move credits between two active keys and return the new balances of both, or move none.

        It raises what `take` does.
        """
        ledger.check_amount(amount, smallest=1)
        with self._database.write() as connection:
            from_id, to_id = ledger.lock_active(connection, from_name, to_name)
            ledger.take(connection, from_id, amount, at_s=self._now_s())
            ledger.grant(connection, to_id, amount, at_s=self._now_s())
            details: dict[str, Detail] = {"to": to_name, "to_key_id": to_id, "credits": amount}
            self._audit.note(connection, by, "credits transfer", from_name, from_id, **details)
            return ledger.read_balance(connection, from_id), ledger.read_balance(connection, to_id)

    def hold(self, key_id: int, request_id: str) -> Hold:
        """Hold one credit for a request before its work begins.

        Args:
            request_id: made by the server, never chosen by a client.

        Raises:
            InsufficientApiCredits: the balance is 0.
            StateError: the request id was used for a hold before.
            DatabaseFailed, FolderUnusable: there is no hold; the release of one that may have been
                committed is pending.
        """
        hold = Hold(key_id, request_id)
        begun_s = self._running_clock()
        try:
            while not self._try_hold(hold, self._holder.id):
                pass  # this process was declared dead, and has a new id
        except IntegrityError:
            raise StateError(f"request {request_id} has a hold already") from None
        except DatabaseFailed as error:
            if error.is_connection_lost:  # it may have been committed all the same, or will be
                self._own[request_id] = (hold, begun_s)
                self.pending.add(hold)
            raise
        self._own[request_id] = (hold, begun_s)
        return hold

    def _try_hold(self, hold: Hold, holder_id: str) -> bool:
        """Hold one credit; return False if the holder was declared dead: it needs a new id."""
        if not self._database.is_server:
            with self._database.write() as connection:
                ledger.insert_hold(connection, hold, holder_id, at_s=self._now_s())
            return True
        with self._database.autocommit() as connection:
            is_held = server_ledger.place_hold(connection, hold, holder_id, at_s=self._now_s())
        if not is_held:
            self._holder.forget(holder_id)
        return is_held

    def capture(self, hold: Hold, paid: PaidResult | None = None) -> None:
        """Capture a hold, and record the result that it paid for; doing it twice is safe.

        Raises:
            HoldReleased: it was given back before. The image must then not be delivered.
            DatabaseFailed: it may have been captured or not: call this again, or `give_back`.
        """
        with self._settling() as connection:
            is_captured = self._steps.capture(connection, hold, paid, at_s=self._now_s())
            if not is_captured and not ledger.has_entry(connection, hold, "capture"):
                raise HoldReleased(f"the hold of request {hold.request_id} was released")
        self._own.pop(hold.request_id, None)

    def release(self, hold: Hold) -> bool:
        """Release a hold; return False for one that was settled before, which stays as it is."""
        with self._settling() as connection:
            is_released = self._steps.release(connection, hold, at_s=self._now_s())
        self._own.pop(hold.request_id, None)
        return is_released

    def give_back(self, hold: Hold) -> bool:
        """Make sure that a request whose image was not delivered costs nothing.

        An open hold is released. One that was captured, unknown to its caller, is granted again,
        and the record of its result removed, unless a retry was given that. One that is not there
        may be of an open transaction: `release_stale` sees to it when it is too old.

        Returns:
            Whether this call gave a credit back; a second call does not.
        """
        if self._database.is_server and self._release_at_once(hold):
            return True
        try:
            with self._database.write() as connection:
                is_given_back = ledger.release(connection, hold, at_s=self._now_s())
                # A hold that was open until now was not captured.
                is_captured = not is_given_back and ledger.has_entry(connection, hold, "capture")
                if is_captured and not is_answered(connection, hold):
                    is_given_back = ledger.refund(connection, hold, at_s=self._now_s())
                is_settled = is_given_back or ledger.has_entry(connection, hold, "hold")
        except IntegrityError:  # another call was granting it at the same time
            is_given_back, is_settled = False, True
        if is_settled:
            self._own.pop(hold.request_id, None)
        return is_given_back

    def _release_at_once(self, hold: Hold) -> bool:
        """Release a hold on a server if it is open, as most are, in one statement."""
        with self._database.autocommit() as connection:
            is_released = server_ledger.release(connection, hold, at_s=self._now_s())
        if is_released:
            self._own.pop(hold.request_id, None)
        return is_released

    def give_back_or_retry(self, hold: Hold) -> bool:
        """Do `give_back`, and leave the hold to `retry_pending` if that raises."""
        try:
            return self.give_back(hold)
        except BaseException:
            self.pending.add(hold)
            raise

    def retry_pending(self) -> Retried:
        """Give back what is pending until that fails; the hold that failed goes to the end."""
        released = 0
        while hold := self.pending.first():
            try:
                released += self.give_back(hold)
            except Exception as error:  # noqa: BLE001  (reported beside what was given back)
                self.pending.postpone(hold)
                return Retried(released, error)
            self.pending.remove(hold)
        return Retried(released)

    def release_stale(self, holders: Holders) -> int:
        """Release the holds of processes that died, and forgotten ones; return how many.

        The first failure is raised after all were tried.
        """
        holds = OPEN_HOLDS.c
        is_traceless = holds.holder_id.not_in([*holders.dead, *holders.living])
        is_too_old = holds.held_at_s < self._clock() - self._max_hold_age_s
        query = sa.select(holds.key_id, holds.request_id).where(
            holds.holder_id != ledger.JOB_HOLDER,
            sa.or_(holds.holder_id.in_(holders.dead), sa.and_(is_traceless, is_too_old)),
        )
        with self._database.read() as connection:
            stale = [Hold(row.key_id, row.request_id) for row in connection.execute(query)]
        return self._release_all([*stale, *self._forgotten()])

    def _release_all(self, holds: list[Hold]) -> int:
        failures: list[Exception] = []
        released = 0
        for hold in holds:
            try:
                released += self.release(hold)
            except (StateError, SQLAlchemyError) as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return released

    def _forgotten(self) -> list[Hold]:
        """Return this process's own holds that are too old for any request."""
        since_s = self._running_clock() - self._max_hold_age_s
        return [hold for hold, held_at_s in list(self._own.values()) if held_at_s < since_s]

    def audit(self) -> tuple[Discrepancy, ...]:
        """Return every key whose ledger does not add up; empty when all do."""
        with self._database.read() as connection:
            return ledger.audit(connection)

    def _now_s(self) -> int:
        return int(self._clock())
