"""Leases of front ends on PostgreSQL: which are valid, which leads, and holds of crashed ones."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.databases import PostgreSQL
from tests.service.state.conftest import Clock, MakeSettings, all_of
from upscaled.state import Hold, State, open_state
from upscaled.state.database import read_time_s
from upscaled.state.errors import DatabaseFailed, HoldReleased
from upscaled.state.lease import DEAD_AFTER_S, RENEW_EVERY_S, LeasedHolder
from upscaled.state.schema import HOLDERS
from upscaled.state.server_ledger import place_hold


@dataclass
class FrontEnd:
    """A state on PostgreSQL whose lease is renewed only when a test says so."""

    state: State
    clock: Clock

    @property
    def holder(self) -> LeasedHolder:
        assert isinstance(self.state.holder, LeasedHolder)
        return self.state.holder

    def renew(self, *, for_s: float = 0) -> None:
        """Renew once, or as often as in so many seconds."""
        end_s = self.clock.now_s + for_s
        self.holder.renew()
        while self.clock.now_s < end_s:
            self.clock.now_s += RENEW_EVERY_S
            self.holder.renew()

    def hold(self, number: int = 1) -> Hold:
        return self.state.credits.hold(1, f"{id(self)}-{number}")


@dataclass
class FrontEnds:
    """Front ends of one database, each with clocks and a data folder of its own."""

    make_settings: MakeSettings
    url: str
    stack: ExitStack
    opened: list[FrontEnd] = field(default_factory=list)

    def open(self) -> FrontEnd:
        settings = self.make_settings(database_url=self.url)
        settings = settings.model_copy(
            update={"data_dir": settings.data_dir / str(len(self.opened))}
        )
        clock = Clock()
        front_end = FrontEnd(self.stack.enter_context(open_state(settings, all_of(clock))), clock)
        self.opened.append(front_end)
        return front_end

    def age_leases(self, by_s: float) -> None:
        """Let time pass by the database's clock without a renewal."""
        with self.opened[0].state.database.write() as connection:
            connection.execute(sa.update(HOLDERS).values(seen_at_s=HOLDERS.c.seen_at_s - by_s))

    def rows(self) -> dict[str, int | None]:
        with self.opened[0].state.database.read() as connection:
            return {row.id: row.seen_at_s for row in connection.execute(sa.select(HOLDERS))}


@pytest.fixture
def front_ends(
    server_url: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FrontEnds]:
    monkeypatch.setattr(LeasedHolder, "_run", lambda _: None)
    with ExitStack() as stack:
        yield FrontEnds(make_settings, server_url, stack)


@pytest.fixture
def pair(front_ends: FrontEnds) -> tuple[FrontEnd, FrontEnd]:
    """Two front ends, and a key with 5 credits."""
    first, second = front_ends.open(), front_ends.open()
    first.state.keys.create("web", credits=5)
    return first, second


def test_the_holds_of_a_front_end_that_stops_renewing_are_given_back(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, second = pair
    first.hold(1)
    first.hold(2)
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(DEAD_AFTER_S + 1)
    second.renew()
    assert second.state.sweep().holds_released == 2
    assert second.state.credits.balance(1) == 5
    assert second.state.credits.audit() == ()
    assert front_ends.rows() == {}


def test_a_lease_within_its_time_is_left_alone(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, second = pair
    hold = first.hold()
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(DEAD_AFTER_S - 10)
    second.renew()
    assert second.state.sweep().holds_released == 0
    first.renew()
    front_ends.age_leases(DEAD_AFTER_S - 10)
    second.renew()
    assert second.state.sweep().holds_released == 0
    first.state.credits.capture(hold)
    assert second.state.credits.balance(1) == 4


def test_a_front_end_declared_dead_captures_no_released_hold_and_keeps_running(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd], caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection was cut for 70 s, while images were in the works."""
    first, second = pair
    finished, failed = first.hold(1), first.hold(2)
    before = first.holder.id
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(70)
    second.renew()
    assert second.state.sweep().holds_released == 2
    with pytest.raises(HoldReleased):
        first.state.credits.capture(finished)
    assert not first.state.credits.give_back(finished)
    assert not first.state.credits.release(failed)
    assert first.state.credits.balance(1) == 5
    later = first.hold(3)
    assert first.holder.id != before
    first.state.credits.capture(later)
    assert second.state.credits.balance(1) == 4
    assert second.state.credits.audit() == ()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_hold_between_the_declaration_and_the_sweep_belongs_to_the_new_id(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, second = pair
    first.hold(1)
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(DEAD_AFTER_S + 1)
    second.renew()
    later = first.hold(2)
    assert second.state.sweep().holds_released == 1
    first.state.credits.capture(later)
    assert second.state.credits.balance(1) == 4


def test_a_renewal_after_the_declaration_does_not_undo_it(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    first.hold()
    before = first.holder.id
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(DEAD_AFTER_S + 1)
    second.renew()
    first.renew()
    assert "had been declared dead" in caplog.text
    assert front_ends.rows() == {before: None}
    assert first.state.sweep().holds_released == 1  # by any process, the leader or not
    assert first.state.credits.balance(1) == 5


def test_a_declaration_waits_for_a_hold_that_is_being_taken(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    """Else the hold would be committed behind the sweep, and belong to nothing."""
    first, second = pair
    holder_id = first.holder.id
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(DEAD_AFTER_S + 1)
    declaring = threading.Thread(target=second.holder.renew)
    with first.state.database.write() as connection:
        assert place_hold(connection, Hold(1, "r1"), holder_id, at_s=0)
        declaring.start()
        declaring.join(0.3)
        assert declaring.is_alive()
    declaring.join(60)
    assert front_ends.rows() == {holder_id: None}


def test_a_clock_that_is_set_forward_lets_no_lease_run_out(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real clock of the database cannot be set: leases are set back, and what is read of it."""
    first, second = pair
    hold = first.hold()
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(3600)
    monkeypatch.setattr(
        "upscaled.state.clocks.read_time_s", lambda connection: read_time_s(connection) + 3600
    )
    second.renew()
    assert second.state.sweep().holds_released == 0
    first.renew()
    second.renew(for_s=DEAD_AFTER_S)
    first.state.credits.capture(hold)
    assert second.state.credits.balance(1) == 4
    first.hold(2)
    front_ends.age_leases(DEAD_AFTER_S + 1)
    second.renew()
    assert second.state.sweep().holds_released == 1  # it is dead


def test_after_an_outage_of_the_database_no_front_end_is_declared_dead(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, second = pair
    hold = first.hold()
    second.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(300)
    second.clock.now_s += 300  # neither could renew
    second.renew(for_s=DEAD_AFTER_S - RENEW_EVERY_S)
    first.renew()
    second.renew(for_s=RENEW_EVERY_S)
    assert second.state.sweep().holds_released == 0
    first.state.credits.capture(hold)


def test_one_front_end_leads_and_its_end_frees_the_lead_at_once(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, second = pair
    first.renew()
    second.renew()
    assert (first.holder.lead(), second.holder.lead()) == (True, False)
    first.state.close()
    second.renew()
    assert second.holder.lead()


def test_a_leader_that_is_killed_frees_the_lead_at_once(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd], tmp_path: Path
) -> None:
    leading = f"""
import time
from pathlib import Path
from upscaled.config import load_settings
from upscaled.state import open_state
settings = load_settings(
    {{}}, database_url={front_ends.url!r}, data_dir=Path({str(tmp_path)!r})
)
state = open_state(settings)
while not state.holder.lead():
    time.sleep(0.01)
print("leads", flush=True)
time.sleep(60)
"""
    first, _ = pair
    process = subprocess.Popen([sys.executable, "-c", leading], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "leads\n"
        first.renew()
        assert not first.holder.lead()
        process.kill()
        process.wait()
    while not first.holder.lead():  # once the server has seen the end of the connection
        first.renew()


def test_a_leader_that_loses_its_connection_loses_the_lead(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd], postgresql: PostgreSQL
) -> None:
    first, second = pair
    first.renew()
    postgresql.run(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    )
    with pytest.raises(DatabaseFailed):
        first.renew()
    assert not first.holder.lead()
    second.renew()
    first.renew()
    assert (first.holder.lead(), second.holder.lead()) == (False, True)


def test_only_the_leader_declares_front_ends_dead(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    leader, other = pair
    third = front_ends.open()
    third.hold()
    leader.renew()
    other.renew(for_s=DEAD_AFTER_S)
    front_ends.age_leases(DEAD_AFTER_S + 1)
    other.renew()
    assert other.state.sweep().holds_released == 0
    leader.renew(for_s=DEAD_AFTER_S)
    assert other.state.sweep().holds_released == 1


def test_a_front_end_that_closes_gives_its_holds_back_at_once(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, second = pair
    first.hold()
    first.state.close()
    assert second.state.credits.balance(1) == 5
    assert front_ends.rows() == {}


def test_many_holds_at_once_share_one_lease(
    front_ends: FrontEnds, pair: tuple[FrontEnd, FrontEnd]
) -> None:
    first, _ = pair
    threads = [threading.Thread(target=first.hold, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(front_ends.rows()) == [first.holder.id]
    assert first.state.credits.balance(1) == 0


def test_the_thread_renews_and_survives_a_cut_connection(
    server_url: str,
    make_settings: MakeSettings,
    postgresql: PostgreSQL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upscaled.state.lease.RENEW_EVERY_S", 0.02)
    with open_state(make_settings(database_url=server_url)) as state:
        assert isinstance(state.holder, LeasedHolder)
        holder_id = state.holder.id
        for _ in range(2):
            wait_until_it_leads(state.holder)
            with state.database.write() as connection:
                connection.execute(sa.update(HOLDERS).values(seen_at_s=0))
            wait_until_renewed(state)
            postgresql.run("SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND granted")  # fmt: skip
        wait_until_it_leads(state.holder)
        assert state.holder.id == holder_id


def wait_until_it_leads(holder: LeasedHolder) -> None:
    while not holder.lead():
        threading.Event().wait(0.01)


def wait_until_renewed(state: State) -> None:
    query = sa.select(HOLDERS.c.id).where(HOLDERS.c.seen_at_s > 0)
    while True:
        with state.database.read() as connection:
            if connection.execute(query).first() is not None:
                return
        threading.Event().wait(0.01)
