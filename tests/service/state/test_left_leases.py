"""Leases of dead processes on SQLite end at the next start, those of living ones never."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, key_with
from tests.service.state.disks import small_disk
from upscaled.errors import RequestInProgress
from upscaled.state import State, open_state
from upscaled.state.idempotency import RequestKey, Reservation
from upscaled.state.job_rows import JobOrder
from upscaled.state.left_leases import end_left_leases
from upscaled.state.schema import WEBHOOK_DELIVERIES

ORDER = JobOrder("source-1", None, 4, "")


class Processes:
    """Processes that serve one database."""

    def __init__(self, make_settings: MakeSettings, database_url: str, stack: ExitStack) -> None:
        self._settings = make_settings(database_url=database_url)
        self._stack = stack

    def start(self) -> State:
        state = self._stack.enter_context(open_state(self._settings))
        end_left_leases(state.database, state.holder, state.database_clock)
        return state


@pytest.fixture
def processes(database_url: str, make_settings: MakeSettings) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(make_settings, database_url, stack)


def leave_leases(state: State) -> RequestKey:
    """Begin a request, a job and the call of a webhook; the request's key is returned."""
    key_id = key_with(state, 9)
    state.webhooks.configure("web", "https://example.com/hook")
    ended, left = (
        state.jobs.submit(key_id, ORDER, is_metered=False, max_unfinished=9).job for _ in range(2)
    )
    state.jobs.cancel(key_id, ended.id)
    claimed, delivery = state.jobs.claim(), state.webhooks.claim()
    assert claimed is not None
    assert claimed.job.id == left.id
    assert delivery is not None
    key = RequestKey(key_id, "name", "fingerprint")
    assert isinstance(state.idempotency.reserve(key), Reservation)
    return key


def test_what_a_killed_process_left_is_begun_again_at_once(processes: Processes) -> None:
    killed = processes.start()
    if killed.database.is_server:
        pytest.skip("another machine may work under the leases of a PostgreSQL")
    key = leave_leases(killed)
    killed.holder.close()  # its file is unlocked, as by the end of a process
    again = processes.start()
    reserved = again.idempotency.reserve(key)
    assert isinstance(reserved, Reservation)
    assert not reserved.is_paid
    job, delivery = again.jobs.claim(), again.webhooks.claim()
    assert job is not None
    assert (job.job.state, delivery is not None) == ("running", True)
    with again.database.read() as connection:
        assert connection.execute(sa.select(WEBHOOK_DELIVERIES.c.attempts)).scalar_one() == 2


def test_what_a_living_process_works_on_is_left_to_it(processes: Processes) -> None:
    key = leave_leases(processes.start())
    other = processes.start()
    with pytest.raises(RequestInProgress):
        other.idempotency.reserve(key)
    assert other.jobs.claim() is None
    assert other.webhooks.claim() is None


def test_what_a_killed_process_held_is_given_back_although_its_leases_were_ended(
    processes: Processes,
) -> None:
    killed, survivor = processes.start(), processes.start()
    if killed.database.is_server:
        pytest.skip("holds on a PostgreSQL are given back once the lease of their holder is over")
    key_id = key_with(killed, 1)
    killed.credits.hold(key_id, "request")
    killed.holder.close()
    end_left_leases(survivor.database, survivor.holder, survivor.database_clock)
    survivor.credits.release_stale()
    assert survivor.credits.balance(key_id) == 1


def test_a_service_starts_on_a_full_disk_and_leases_there_run_out_by_themselves(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    settings.data_dir.mkdir(exist_ok=True)
    with small_disk(settings.data_dir, 4_000_000):
        with open_state(settings) as killed:
            key = leave_leases(killed)
        with open_state(settings) as again:
            filler = settings.data_dir / "filler"
            with suppress(OSError):
                filler.write_bytes(bytes(4_000_000))
            end_left_leases(again.database, again.holder, again.database_clock)
            assert "run out by themselves: the database does not work" in caplog.text
            filler.unlink()
            with pytest.raises(RequestInProgress):
                again.idempotency.reserve(key)
