"""Ledger, jobs and idempotency keys against a model, with crashes between any two transactions.

Two front ends share a database. A request is a chain of transactions, each a step of its own, so
that a crash, a lost lease or another front end's step can come between any two of them.
"""

import shutil
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.databases import make_tables
from tests.service.state.billing_model import Billing
from upscaled.config import load_settings
from upscaled.errors import InsufficientApiCredits, InternalError, RequestInProgress
from upscaled.state import Clocks, PaidResult, State, open_state
from upscaled.state.errors import HoldReleased
from upscaled.state.idempotency import RequestKey, Reservation, StoredAnswer
from upscaled.state.job_rows import ClaimedJob, JobOrder
from upscaled.state.ledger import Hold
from upscaled.state.schema import HOLDERS, IDEMPOTENCY_KEYS, JOBS, METADATA, WEBHOOK_DELIVERIES

GRANTED = 6
FRONT_ENDS = st.integers(0, 1)
NAMES = st.just("a")  # of one name, steps of several requests meet more often
PICK = st.integers(0, 1_000)
ORDER = JobOrder(None, "http://a.example/a.jpg", 4, "", webhook_url="https://a.example/hook")


@dataclass(eq=False)
class Request:
    """A request without a job. step: the last transaction of it that was committed."""

    front_end: int
    id: str
    reservation: Reservation | None = None
    step: Literal["reserved", "held", "captured", "given back"] = "reserved"

    @property
    def name(self) -> str | None:
        return self.reservation.key.name if self.reservation else None

    @property
    def is_paid(self) -> bool:
        return self.reservation is not None and self.reservation.is_paid


class BillingMachine(RuleBasedStateMachine):
    """Do the same to the database and to the model, and compare.

    server_url: PostgreSQL's, emptied before each run; empty: a SQLite file of each run's own.
    """

    def __init__(self, server_url: str = "") -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        make_tables(self.folder / "data")
        self.settings = load_settings({}, data_dir=self.folder / "data", database_url=server_url)
        self.front_ends = [self._start_front_end() for _ in range(2)]
        if server_url:
            _empty(self.either)
        key = self.either.keys.verify(self.either.keys.create("web", credits=GRANTED))
        assert key is not None
        self.key_id = key.id
        self.either.webhooks.configure("web", None)
        self.model = Billing(GRANTED)
        self.requests: list[Request] = []
        self.claims: list[ClaimedJob] = []

    def teardown(self) -> None:
        for state in self.front_ends:
            state.close()
        shutil.rmtree(self.folder)

    def _start_front_end(self) -> State:
        """Open the state as it is a minute after a start: leases that ran out are judged."""
        passed_s: list[float] = []
        state = open_state(self.settings, Clocks(running=lambda: time.monotonic() + sum(passed_s)))
        with state.database.read() as connection:
            for _ in range(7):  # steps of the clock that are tolerated
                passed_s.append(10)
                state.jobs._database_clock.has_run_steadily(connection, 0)
        return state

    @property
    def either(self) -> State:
        return self.front_ends[0]

    def _request_key(self, name: str) -> RequestKey:
        return RequestKey(self.key_id, name, "fingerprint")

    # Requests

    @rule(front_end=FRONT_ENDS)
    def begin_without_a_name(self, front_end: int) -> None:
        self.requests.append(Request(front_end, str(uuid.uuid4())))

    @rule(front_end=FRONT_ENDS, name=NAMES)
    def begin(self, front_end: int, name: str) -> None:
        state = self.front_ends[front_end]
        reserve = state.idempotency.reserve
        if self.model.is_running(name):
            with pytest.raises(RequestInProgress):
                reserve(self._request_key(name))
            return
        answered = self.model.find_answered(name)
        given = reserve(self._request_key(name))
        if answered:
            assert given == _answer(answered)
            return
        assert isinstance(given, Reservation)
        assert not given.is_paid
        self.model.reserve(name, given.request_id, state.holder.process_id)
        self.requests.append(Request(front_end, given.request_id, given))

    @rule(front_end=FRONT_ENDS, name=NAMES)
    def compute_an_expired_result_again(self, front_end: int, name: str) -> None:
        if not self.model.can_redo(name):
            return
        known = self.model.names[name]
        reserve_again = self.front_ends[front_end].idempotency.reserve_again
        given = reserve_again(self._request_key(name), _answer(known.request_id))
        assert given.is_paid
        known.leased_by = self.front_ends[front_end].holder.process_id
        self.requests.append(Request(front_end, given.request_id, given, "captured"))

    @rule(pick=PICK)
    def advance(self, pick: int) -> None:
        """Commit the next transaction of a request."""
        if not self.requests:
            return
        request = self.requests[pick % len(self.requests)]
        state = self.front_ends[request.front_end]
        if request.step == "reserved":
            self._hold(state, request)
        elif request.step == "held":
            self._capture(state, request)
        else:
            self._end_request(state, request)

    def _hold(self, state: State, request: Request) -> None:
        if self.model.balance == 0:
            with pytest.raises(InsufficientApiCredits):
                state.credits.hold(self.key_id, request.id)
            request.step = "given back"
        else:
            state.credits.hold(self.key_id, request.id)
            self.model.charges[request.id] = request.step = "held"

    def _capture(self, state: State, request: Request) -> None:
        hold = Hold(self.key_id, request.id)
        paid = PaidResult(_answer(request.id).file_name, "image/jpeg")
        if self.model.charges[request.id] == "released":
            with pytest.raises(HoldReleased):
                state.credits.capture(hold, paid)
            request.step = "given back"
        else:
            state.credits.capture(hold, paid)
            self.model.charges[request.id] = request.step = "captured"

    def _end_request(self, state: State, request: Request) -> None:
        self.requests.remove(request)
        if request.reservation is None or request.name is None:
            return
        if request.step == "captured":
            state.idempotency.complete(request.reservation, _answer(request.id))
            self.model.complete(request.name, request.id)
        else:
            state.idempotency.abandon(request.reservation)
            self.model.abandon(request.name, request.id)

    @rule(pick=PICK)
    def fail(self, pick: int) -> None:
        """Give back what a request holds: its image could not be made, or not be delivered."""
        if not self.requests:
            return
        request = self.requests[pick % len(self.requests)]
        if request.step in ("held", "captured") and not request.is_paid:
            hold = Hold(self.key_id, request.id)
            self.front_ends[request.front_end].credits.give_back(hold)
            self.model.give_back(request.name, request.id)
        request.step = "given back"

    @rule(name=NAMES)
    def lose_the_lease_of_a_request(self, name: str) -> None:
        if known := self.model.names.get(name):
            known.leased_by = None
            row = IDEMPOTENCY_KEYS.c
            is_leased = sa.and_(row.name == name, row.lease_until_s.is_not(None))
            with self.either.database.write() as connection:
                over = sa.update(IDEMPOTENCY_KEYS).where(is_leased).values(lease_until_s=0.0)
                connection.execute(over)

    @rule(front_end=FRONT_ENDS)
    def crash(self, front_end: int) -> None:
        """End a front end without a word, and start another in its place."""
        state = self.front_ends[front_end]
        process_id = state.holder.process_id
        # What the kernel does to the lock of a process that is killed, or the leader to its lease.
        state.holder.close()
        state.database.close()
        self.front_ends[front_end] = self._start_front_end()
        self.model.end_leases(process_id)
        lost = self._requests_of(front_end)
        self.model.lose_front_end([request.id for request in lost])
        self.requests = [request for request in self.requests if request not in lost]

    @precondition(lambda self: self.settings.database_url)
    @rule(front_end=FRONT_ENDS)
    def be_declared_dead_in_error(self, front_end: int) -> None:
        """End the lease of a front end that goes on, as one whose connection was cut."""
        holder_id = self.front_ends[front_end].holder.id
        with self.either.database.write() as connection:
            own = sa.update(HOLDERS).where(HOLDERS.c.id == holder_id)
            connection.execute(own.values(seen_at_s=None))
        self.front_ends[1 - front_end].settle_left()
        self.model.lose_front_end([request.id for request in self._requests_of(front_end)])

    def _requests_of(self, front_end: int) -> list[Request]:
        return [request for request in self.requests if request.front_end == front_end]

    # Jobs

    @rule(front_end=FRONT_ENDS, name=st.sampled_from([None, "j"]))
    def submit(self, front_end: int, name: str | None) -> None:
        known = self.model.find_submitted(name)
        try:
            change = self.front_ends[front_end].jobs.submit(
                self.key_id,
                ORDER,
                is_metered=True,
                max_unfinished=100,
                request_key=self._request_key(name) if name else None,
            )
        except InsufficientApiCredits:
            assert (known, self.model.balance) == (None, 0)
            return
        assert change.is_changed == (known is None)
        if known:
            assert change.job.id == known
        else:
            self.model.submit(name, change.job.id)

    @rule(front_end=FRONT_ENDS)
    def claim(self, front_end: int) -> None:
        claimed = self.front_ends[front_end].jobs.claim()
        jobs = self.model.jobs
        if claimed is None:
            # A job whose last attempt was left stands before others until it is ended.
            is_blocked = any(job.is_given_up for job in jobs.values())
            assert is_blocked or not any(job.is_claimable for job in jobs.values())
            return
        assert jobs[claimed.job.id].is_claimable
        self.model.claim(claimed.job.id, claimed.lease_id)
        self.claims.append(claimed)

    @rule(pick=PICK, front_end=FRONT_ENDS)
    def renew(self, pick: int, front_end: int) -> None:
        if claimed := self._pick_claim(pick):
            is_ours = self.model.is_ours(claimed.job.id, claimed.lease_id)
            assert self.front_ends[front_end].jobs.renew(claimed, 1, 2) == is_ours
            if is_ours:
                self.model.jobs[claimed.job.id].is_left = False

    @rule(pick=PICK, front_end=FRONT_ENDS)
    def put_back(self, pick: int, front_end: int) -> None:
        if claimed := self._pick_claim(pick):
            is_ours = self.model.is_ours(claimed.job.id, claimed.lease_id)
            assert self.front_ends[front_end].jobs.put_back(claimed) == is_ours
            if is_ours:
                self.model.put_back(claimed.job.id)

    @rule(pick=PICK, front_end=FRONT_ENDS)
    def fail_a_job(self, pick: int, front_end: int) -> None:
        if claimed := self._pick_claim(pick):
            is_ours = self.model.is_ours(claimed.job.id, claimed.lease_id)
            assert self.front_ends[front_end].jobs.fail(claimed, InternalError()) == is_ours
            if is_ours:
                self.model.end(claimed.job.id, "failed")

    @rule(pick=PICK, front_end=FRONT_ENDS)
    def finish(self, pick: int, front_end: int) -> None:
        if claimed := self._pick_claim(pick):
            is_ours = self.model.is_ours(claimed.job.id, claimed.lease_id)
            is_again = self.model.jobs[claimed.job.id].ended_by == claimed.lease_id
            result = PaidResult(f"{claimed.lease_id}.jpg", "image/jpeg")
            jobs = self.front_ends[front_end].jobs
            assert jobs.finish(claimed, result) == (is_ours or is_again)
            if is_ours:
                self.model.end(claimed.job.id, "succeeded", claimed.lease_id)

    def _pick_claim(self, pick: int) -> ClaimedJob | None:
        """Return a claim of any time: it may have been lost to another front end."""
        return self.claims[pick % len(self.claims)] if self.claims else None

    @rule(pick=PICK)
    def lose_the_lease_of_a_job(self, pick: int) -> None:
        running = [id for id, job in self.model.jobs.items() if job.state == "running"]
        if running:
            id = running[pick % len(running)]
            self.model.jobs[id].is_left = True
            with self.either.database.write() as connection:
                over = sa.update(JOBS).where(JOBS.c.id == id).values(lease_until_s=0.0)
                connection.execute(over)

    @rule(pick=PICK, front_end=FRONT_ENDS)
    def cancel(self, pick: int, front_end: int) -> None:
        if not self.model.jobs:
            return
        id, job = list(self.model.jobs.items())[pick % len(self.model.jobs)]
        change = self.front_ends[front_end].jobs.cancel(self.key_id, id)
        assert change is not None
        assert change.is_changed == job.is_open
        if job.is_open:
            self.model.end(id, "cancelled")

    @rule(front_end=FRONT_ENDS)
    def end_what_was_left_too_often(self, front_end: int) -> None:
        ended = {job.id for job in self.front_ends[front_end].jobs.end_unwanted()}
        assert ended == {id for id, job in self.model.jobs.items() if job.is_given_up}
        for id in ended:
            self.model.end(id, "failed")

    # What holds after every step

    @invariant()
    def the_ledger_is_exact(self) -> None:
        credits = self.either.credits
        assert credits.balance(self.key_id) == self.model.balance >= 0
        assert credits.audit() == ()

    @invariant()
    def every_answer_is_paid_for(self) -> None:
        for known in self.model.names.values():
            if known.is_answered:
                assert self.model.charges[known.request_id] == "captured"

    @invariant()
    def every_job_is_there_and_every_webhook_is_queued_once(self) -> None:
        with self.either.database.read() as connection:
            rows = connection.execute(sa.select(JOBS.c.id, JOBS.c.state)).all()
            queued = connection.execute(sa.select(WEBHOOK_DELIVERIES.c.job_id)).scalars().all()
        jobs = self.model.jobs
        assert {row.id: row.state for row in rows} == {id: job.state for id, job in jobs.items()}
        assert Counter(queued) == Counter(id for id, job in jobs.items() if not job.is_open)


def _answer(request_id: str) -> StoredAnswer:
    return StoredAnswer(f"{request_id}.jpg", "image/jpeg", {})


def _empty(state: State) -> None:
    names = ", ".join(table.name for table in METADATA.sorted_tables)
    with state.database.write() as connection:
        connection.execute(sa.text(f"TRUNCATE {names}"))


def _many(runs: int) -> object:
    return pytest.param(runs, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])


@pytest.mark.parametrize("runs", [20, _many(2_000)])
def test_no_order_of_steps_and_crashes_breaks_the_billing(runs: int) -> None:
    run_state_machine_as_test(BillingMachine, settings=_settings(runs))


@pytest.mark.parametrize("runs", [3, _many(300)])
def test_no_order_of_steps_and_crashes_breaks_the_billing_on_postgresql(
    server_url: str, runs: int
) -> None:
    class OnServer(BillingMachine):
        def __init__(self) -> None:
            super().__init__(server_url)

    run_state_machine_as_test(OnServer, settings=_settings(runs))


def _settings(runs: int) -> settings:
    return settings(
        max_examples=runs,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
