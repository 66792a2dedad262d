"""Leases of processes that ended are over at the next start, those of living ones never."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, key_with
from tests.service.state.disks import small_disk
from upscaled.errors import InternalError, RequestInProgress
from upscaled.state import State, open_state
from upscaled.state.holder import FileHolder
from upscaled.state.idempotency import RequestKey, Reservation
from upscaled.state.job_rows import JobOrder
from upscaled.state.job_steps import MAX_ATTEMPTS
from upscaled.state.lease import LeasedHolder
from upscaled.state.schema import JOBS, WEBHOOK_DELIVERIES

ORDER = JobOrder("source-1", None, 4, "")


class Processes:
    """Processes that serve one database."""

    def __init__(self, make_settings: MakeSettings, database_url: str, stack: ExitStack) -> None:
        self._settings = make_settings(database_url=database_url)
        self._stack = stack

    def start(self, machine: str = "data") -> State:
        """Start a process on a machine that has a data folder of its own."""
        folder = self._settings.data_dir.with_name(machine)
        return self._stack.enter_context(
            open_state(self._settings.model_copy(update={"data_dir": folder}))
        )


@pytest.fixture
def processes(database_url: str, make_settings: MakeSettings) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(make_settings, database_url, stack)


def kill(state: State) -> None:
    """Unlock the file of a process, as the kernel does at its end, and do nothing else."""
    holder = state.holder
    process = holder._process if isinstance(holder, LeasedHolder) else holder
    assert isinstance(process, FileHolder)
    process.close()


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
    key = leave_leases(killed)
    kill(killed)
    again = processes.start()
    reserved = again.idempotency.reserve(key)
    assert isinstance(reserved, Reservation)
    assert not reserved.is_paid
    job, delivery = again.jobs.claim(), again.webhooks.claim()
    assert job is not None
    assert (job.job.state, job.job.attempts, delivery is not None) == ("running", 2, True)
    with again.database.read() as connection:
        assert connection.execute(sa.select(WEBHOOK_DELIVERIES.c.attempts)).scalar_one() == 2


def test_a_job_whose_last_process_was_killed_fails_at_once(processes: Processes) -> None:
    killed = processes.start()
    leave_leases(killed)
    with killed.database.write() as connection:
        running = sa.update(JOBS).where(JOBS.c.state == "running")
        connection.execute(running.values(attempts=MAX_ATTEMPTS))
    kill(killed)
    again = processes.start()
    (failed,) = again.jobs.end_unwanted()
    assert (failed.state, failed.error_code) == ("failed", InternalError.error_code)


def test_what_a_living_process_works_on_is_left_to_it(processes: Processes) -> None:
    key = leave_leases(processes.start())
    other = processes.start()
    with pytest.raises(RequestInProgress):
        other.idempotency.reserve(key)
    assert other.jobs.claim() is None
    assert other.webhooks.claim() is None


def test_a_process_that_lives_keeps_its_leases_while_what_another_left_is_begun_again(
    processes: Processes,
) -> None:
    living, killed = processes.start(), processes.start()
    key = leave_leases(living)
    kept = living.jobs.list_page(key.key_id, limit=9).jobs
    left = killed.jobs.submit(key.key_id, ORDER, is_metered=False, max_unfinished=9).job
    assert killed.jobs.claim() is not None
    kill(killed)
    again = processes.start()
    claimed = again.jobs.claim()
    assert claimed is not None
    assert claimed.job.id == left.id
    assert again.jobs.claim() is None
    assert kept == living.jobs.list_page(key.key_id, limit=9).jobs[1:]


def test_a_process_that_was_killed_on_another_machine_is_not_taken_for_ended(
    processes: Processes,
) -> None:
    """Nothing there shows that it was: it may only be cut off."""
    elsewhere = processes.start("elsewhere")
    if not elsewhere.database.is_server:
        pytest.skip("SQLite is on one machine")
    key = leave_leases(elsewhere)
    kill(elsewhere)
    here = processes.start()
    with pytest.raises(RequestInProgress):
        here.idempotency.reserve(key)
    assert here.jobs.claim() is None
    assert here.webhooks.claim() is None


def test_what_a_killed_process_held_is_given_back_at_the_next_start(processes: Processes) -> None:
    killed, survivor = processes.start(), processes.start()
    key_id = key_with(killed, 1)
    killed.credits.hold(key_id, "request")
    kill(killed)
    assert processes.start().credits.balance(key_id) == 1
    assert survivor.credits.audit() == ()


def test_a_process_whose_file_cannot_be_made_leaves_leases_that_run_out_by_time(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = processes.start()

    def refuse(path: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("upscaled.state.holder.create_locked", refuse)
    key = leave_leases(without)
    monkeypatch.undo()
    with pytest.raises(RequestInProgress):
        processes.start().idempotency.reserve(key)


def test_a_service_starts_on_a_full_disk_and_settles_what_was_left_once_there_is_room(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings()
    settings.data_dir.mkdir(exist_ok=True)
    with small_disk(settings.data_dir, 4_000_000), open_state(settings) as killed:
        key = leave_leases(killed)
        kill(killed)
        filler = settings.data_dir / "filler"
        with suppress(OSError):
            filler.write_bytes(bytes(4_000_000))
        with open_state(settings) as again:
            assert "is not settled yet: the database does not work" in caplog.text
            filler.unlink()
            with pytest.raises(RequestInProgress):
                again.idempotency.reserve(key)
            again.settle_left()
            assert isinstance(again.idempotency.reserve(key), Reservation)
