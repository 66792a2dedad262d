"""Clocks that are set forward by mistake: what then looks old is kept until they are settled."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, key_with, lead
from upscaled.config import Settings
from upscaled.state import Clocks, State, open_state
from upscaled.state.clocks import SETTLE_S, SMALLEST_STEP_S
from upscaled.state.idempotency import RequestKey
from upscaled.state.job_rows import JobOrder
from upscaled.state.schema import IDEMPOTENCY_KEYS, JOBS
from upscaled.state.usage import UsageRow

YEARS_S = 500 * 86_400.0


@dataclass
class Machine:
    """The clocks of a machine, each moved by a test."""

    passed_s: float = 0.0
    wall_ahead_s: float = 0.0
    database_ahead_s: float = 0.0

    def clocks(self) -> Clocks:
        return Clocks(
            wall=lambda: time.time() + self.passed_s + self.wall_ahead_s,
            boot=lambda: time.monotonic() + self.passed_s - self.database_ahead_s,
            running=time.monotonic,
        )

    def set_database_forward(self, ahead_s: float) -> None:
        """The real clock of the database cannot be set: the two others are set back instead."""
        self.database_ahead_s += ahead_s
        self.wall_ahead_s -= ahead_s


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, machine: Machine) -> Iterator[State]:
    with open_state(make_settings(database_url=database_url), machine.clocks()) as opened:
        lead(opened)
        yield opened


def images(state: State) -> int:
    (totals,) = state.usage.report()
    return totals.images


def add_rows(state: State) -> None:
    """A usage row of now; and a job and a named request that are old by the database's clock."""
    key_id = key_with(state, 0)
    state.usage.add([UsageRow(int(time.time()), "upscale", key_id, 200)])
    order = JobOrder("source-1", None, 4, "")
    state.jobs.submit(key_id, order, is_metered=False, max_unfinished=9)
    state.idempotency.reserve(RequestKey(key_id, "order-17", "fingerprint"))
    claimed = state.jobs.claim()
    assert claimed is not None
    old_s = time.time() - YEARS_S
    with state.database.write() as connection:
        values = {"state": "cancelled", "lease_id": None, "ended_at_s": old_s}
        connection.execute(sa.update(JOBS).values(values))
        connection.execute(sa.update(IDEMPOTENCY_KEYS).values(created_at_s=old_s))


def rows(state: State) -> tuple[int, int, int]:
    """The images of all usage, the jobs, and the names of requests."""
    with state.database.read() as connection:
        counts = [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (JOBS, IDEMPOTENCY_KEYS)
        ]
    return images(state), counts[0], counts[1]


def test_rows_outlast_a_machine_whose_clock_is_years_ahead_for_a_minute(
    store: State, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    add_rows(store)
    machine.wall_ahead_s += YEARS_S
    with caplog.at_level(logging.WARNING):
        store.sweep()
        store.sweep()
    (record,) = [each for each in caplog.records if "set forward" in each.getMessage()]
    assert record.__dict__["fields"] == {"seconds": YEARS_S}
    assert rows(store) == (1, 1, 1)
    machine.wall_ahead_s -= YEARS_S
    machine.passed_s += SETTLE_S
    store.sweep()
    assert rows(store) == (1, 0, 0)


def test_rows_outlast_a_database_whose_clock_is_years_ahead(store: State, machine: Machine) -> None:
    add_rows(store)
    machine.set_database_forward(YEARS_S)
    assert rows_after_an_hour(store, machine) == (1, 0, 0)


def test_a_clock_that_stays_ahead_counts_after_an_hour(store: State, machine: Machine) -> None:
    add_rows(store)
    machine.wall_ahead_s += YEARS_S
    assert rows_after_an_hour(store, machine) == (0, 0, 0)


def test_rows_outlast_a_service_that_starts_while_a_clock_is_years_ahead(
    store: State, make_settings: MakeSettings, database_url: str, machine: Machine
) -> None:
    add_rows(store)
    machine.wall_ahead_s += YEARS_S
    store.close()
    with open_state(make_settings(database_url=database_url), machine.clocks()) as again:
        lead(again)
        again.sweep()
        assert rows(again) == (1, 1, 1)
        machine.wall_ahead_s -= YEARS_S
        machine.passed_s += SETTLE_S
        again.sweep()
        assert rows(again) == (1, 0, 0)


def rows_after_an_hour(store: State, machine: Machine) -> tuple[int, int, int]:
    """Check that the hour after a clock's step keeps all rows, and return those it ends with."""
    store.sweep()
    machine.passed_s += SETTLE_S - 600  # of which this test itself takes some
    store.sweep()
    assert rows(store) == (1, 1, 1)
    machine.passed_s += 600
    store.sweep()
    return rows(store)


@pytest.mark.parametrize("step_s", [-YEARS_S, -5.0, 5.0, SMALLEST_STEP_S - 10])
def test_a_clock_that_is_set_back_or_by_little_delays_nothing(
    store: State, machine: Machine, step_s: float
) -> None:
    add_rows(store)
    machine.wall_ahead_s += step_s
    store.sweep()
    assert rows(store)[1:] == (0, 0)


def test_time_that_passes_removes_rows_at_once(store: State, machine: Machine) -> None:
    add_rows(store)
    machine.passed_s += YEARS_S
    store.sweep()
    assert rows(store) == (0, 0, 0)


@dataclass
class Restarts:
    """A service that is started again and again; its clocks show what a test lets pass."""

    settings: Settings
    patched: pytest.MonkeyPatch
    now_s: float = field(default_factory=time.time)
    boot_s: float = 0.0

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds
        self.boot_s += seconds

    @contextmanager
    def run(self, *, wall_ahead_s: float = 0.0) -> Iterator[State]:
        self.patched.setattr("upscaled.state.clocks.read_time_s", lambda _: self.now_s)
        clocks = Clocks(
            wall=lambda: self.now_s + wall_ahead_s,
            boot=lambda: self.boot_s,
            running=lambda: self.boot_s,
        )
        with open_state(self.settings, clocks) as opened:
            lead(opened)
            yield opened

    def run_for(self, seconds: float) -> None:
        with self.run() as opened:
            for _ in range(int(seconds / 60)):
                opened.sweep()
                self.pass_by(60)
            opened.sweep()


@pytest.fixture
def restarts(
    database_url: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> Restarts:
    """A service that has been running for 40 minutes, and has rows that are old."""
    service = Restarts(make_settings(database_url=database_url), monkeypatch)
    with service.run() as opened:
        add_rows(opened)
    service.run_for(SETTLE_S * 2 / 3)
    return service


def test_a_service_that_is_restarted_more_often_than_hourly_removes_old_rows(
    restarts: Restarts,
) -> None:
    restarts.pass_by(120)
    with restarts.run() as opened:
        opened.sweep()
        assert rows(opened) == (1, 1, 1)
    restarts.run_for(SETTLE_S / 3)
    with restarts.run() as opened:
        assert rows(opened) == (1, 0, 0)


@pytest.mark.parametrize("ahead_s", [YEARS_S, -YEARS_S])
def test_a_clock_that_was_set_between_two_starts_is_not_taken_for_steady(
    restarts: Restarts, ahead_s: float
) -> None:
    restarts.now_s += ahead_s
    restarts.run_for(SETTLE_S - 60)
    with restarts.run() as opened:
        assert rows(opened)[1:] == (1, 1)


def test_a_machine_whose_clock_is_ahead_at_a_start_removes_nothing_for_an_hour(
    restarts: Restarts,
) -> None:
    restarts.run_for(SETTLE_S / 3 - 60)
    restarts.pass_by(60)
    with restarts.run(wall_ahead_s=YEARS_S) as opened:
        opened.sweep()
        assert rows(opened) == (1, 1, 1)
