"""The state as a whole: what opening, a sweep and closing do, on both databases."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import Clock, MakeSettings, all_of, end_leases, key_with, lead
from tests.service.state.disks import small_disk
from upscaled.errors import RateLimitExceeded
from upscaled.state import Clocks, PaidResult, State, open_state
from upscaled.state.credits import CreditLedger
from upscaled.state.errors import DatabaseFailed
from upscaled.state.holder import Holders
from upscaled.state.opening import longest_request_s
from upscaled.state.results import SweptResults
from upscaled.state.schema import STORED_RESULTS


def test_the_rate_is_the_settings_own(make_settings: MakeSettings) -> None:
    with open_state(make_settings(rate_per_s=0.1, rate_burst=2)) as state:
        state.rate.take(1)
        state.rate.take(1)
        with pytest.raises(RateLimitExceeded) as refused:
            state.rate.take(1)
    assert refused.value.retry_after_s == 10


def test_a_state_can_be_closed_while_its_server_is_away(
    request: pytest.FixtureRequest, make_settings: MakeSettings
) -> None:
    server = request.getfixturevalue("postgresql")
    server.run("CREATE DATABASE closing")
    settings = make_settings(database_url=server.url("closing"))
    with open_state(settings) as state:
        state.credits.hold(key_with(state, 1), "r1")
        server.run("ALTER DATABASE closing ALLOW_CONNECTIONS false")
        server.run(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = 'closing'"
        )
    server.run("ALTER DATABASE closing ALLOW_CONNECTIONS true")
    end_leases(settings)
    with open_state(settings) as state:
        assert state.credits.show("web") == 1


def test_a_database_on_a_full_disk_refuses_and_recovers_whole(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    filler = settings.data_dir / "filler"
    with small_disk(settings.data_dir, 4_000_000), open_state(settings) as state:
        key = state.keys.verify(state.keys.create("web", credits=1000))
        assert key is not None
        _fill_disk(filler)
        spent = _spend_until_refused(state, key.id)
        filler.unlink()
        state.credits.capture(state.credits.hold(key.id, "after"))
        assert state.credits.balance(key.id) == 1000 - spent - 1
        assert state.credits.audit() == ()
        with sqlite3.connect(settings.data_dir / "upscaled.sqlite3") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def _fill_disk(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as output:
        while output.write(b"x" * 4096):
            pass


def _spend_until_refused(state: State, key_id: int) -> int:
    """Credits on hold or captured when the disk refused the next step."""
    for number in range(1000):
        try:
            hold = state.credits.hold(key_id, f"full-{number}")
        except DatabaseFailed:
            return number
        try:
            state.credits.capture(hold)
        except DatabaseFailed:
            return number + 1
    raise AssertionError("the disk never filled up")


def test_a_sweep_counts_results_and_holds(make_settings: MakeSettings, clock: Clock) -> None:
    settings = make_settings(work_timeout_s=1)
    with open_state(settings, all_of(clock)) as state:
        state.credits.hold(key_with(state, 1), "r1")
        asyncio.run(state.results.store(b"x", "image/png"))
        clock.now_s += max(settings.result_ttl_s, longest_request_s(settings)) + 1
        first, second = state.sweep(), state.sweep()
    assert (first.holds_released, first.results.removed) == (1, 1)
    assert (second.holds_released, second.results) == (0, SweptResults())
    assert first.free_bytes > 0


def test_opening_leaves_the_results_of_a_running_server_alone(
    make_settings: MakeSettings, clock: Clock
) -> None:
    """A command that is run after the clock was set forward would take them for expired."""
    settings = make_settings()
    with open_state(settings, all_of(clock)) as server:
        name = asyncio.run(server.results.store(b"x", "image/png"))
        with open_state(settings, Clocks(wall=lambda: clock() + 100_000)) as command:
            assert command.keys.is_empty()
        assert asyncio.run(server.results.find(name)) is not None


@pytest.mark.parametrize("set_by_s", [28 * 3600.0, -28 * 3600.0])
def test_a_clock_that_is_set_changes_nothing_for_living_requests(
    make_settings: MakeSettings, clock: Clock, set_by_s: float
) -> None:
    running = Clock(5000)
    clocks = Clocks(wall=lambda: clock() + running(), boot=running, running=running)
    settings = make_settings(work_timeout_s=1)
    with open_state(settings, clocks) as state:
        key_id = key_with(state, 3)
        hold = state.credits.hold(key_id, "r1")
        name = asyncio.run(state.results.store(b"x", "image/png"))
        clock.now_s += set_by_s
        assert state.sweep().holds_released == 0
        with open_state(settings, clocks):
            pass  # a command, on the new time
        state.credits.capture(hold, PaidResult(name, "image/png"))
        assert asyncio.run(state.results.find(name)) is not None
        assert state.sweep().results.removed == 0
        assert paid_files(state) == [name]
        running.now_s += settings.result_ttl_s - 1
        assert asyncio.run(state.results.find(name)) is not None
        running.now_s += 2
        assert asyncio.run(state.results.find(name)) is None
        assert state.sweep().results.removed == 1
        later = asyncio.run(state.results.store(b"y", "image/png"))
        running.now_s += settings.result_ttl_s - 1
        assert asyncio.run(state.results.find(later)) is not None
        running.now_s += 2
        assert asyncio.run(state.results.find(later)) is None


def paid_files(state: State) -> list[str]:
    with state.database.read() as connection:
        return list(connection.execute(sa.select(STORED_RESULTS.c.file_name)).scalars())


def test_the_record_of_a_paid_result_is_deleted_with_the_file(
    database_url: str, make_settings: MakeSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(database_url=database_url)
    monkeypatch.setattr("upscaled.state.store._FORGOTTEN_AT_ONCE", 5)
    with open_state(settings, all_of(clock)) as state:
        key_id = key_with(state, 20)
        for number in range(12):  # more than one statement takes
            hold = state.credits.hold(key_id, f"r{number}")
            state.credits.capture(hold, PaidResult(f"{number}.png", "image/png"))
        state.credits.capture(hold, PaidResult("again.png", "image/png"))
        assert len(paid_files(state)) == 12
        lead(state)
        clock.now_s += settings.result_ttl_s - 1
        state.sweep()
        assert len(paid_files(state)) == 12
        clock.now_s += 2
        state.sweep()
        assert paid_files(state) == []


def test_results_are_swept_although_the_database_accepts_no_writes(
    make_settings: MakeSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk it needs the very space that they take."""
    settings = make_settings()

    def refuse(self: CreditLedger, holders: Holders) -> int:
        raise DatabaseFailed("disk full")

    with open_state(settings, all_of(clock)) as state:
        asyncio.run(state.results.store(b"x", "image/png"))
        clock.now_s += settings.result_ttl_s
        with monkeypatch.context() as patched:
            patched.setattr(CreditLedger, "release_stale", refuse)
            with pytest.raises(DatabaseFailed, match="disk full"):
                state.sweep()
        assert not [path for path in settings.results_dir.rglob("*") if path.is_file()]


def test_holds_are_released_although_the_results_cannot_be_swept(
    make_settings: MakeSettings, clock: Clock
) -> None:
    settings = make_settings(work_timeout_s=1)
    with open_state(settings, all_of(clock)) as state:
        key_id = key_with(state, 1)
        state.credits.hold(key_id, "r1")
        clock.now_s += longest_request_s(settings) + 1
        settings.results_dir.rmdir()
        settings.results_dir.write_bytes(b"a file in its place")
        with pytest.raises(NotADirectoryError):
            state.sweep()
        assert state.credits.balance(key_id) == 1


def test_a_file_that_cannot_be_swept_keeps_no_other(
    make_settings: MakeSettings, clock: Clock
) -> None:
    settings = make_settings()
    with open_state(settings, all_of(clock)) as state:
        name = asyncio.run(state.results.store(b"x", "image/png"))
        other = "00" if name[:2] != "00" else "01"
        in_the_way = settings.results_dir / other / name.replace(name[:2], other, 1)
        in_the_way.mkdir(parents=True)
        os.utime(in_the_way, (0, 0))
        link = settings.results_dir / name[:2] / "link.part"
        link.symlink_to("/nonexistent")
        clock.now_s += 100_000
        swept = state.sweep().results
    assert (swept.removed, swept.failed) == (1, 2)


def test_what_a_killed_process_had_paid_for_is_found_by_its_hold(
    database_url: str, make_settings: MakeSettings
) -> None:
    """It is killed after the capture and before the answer."""
    settings = make_settings(database_url=database_url)
    with open_state(settings) as state:
        key_id = key_with(state, 2)
    dying = f"""
import asyncio, os, signal
from pathlib import Path
from upscaled.config import load_settings
from upscaled.state import PaidResult, open_state
settings = load_settings(
    {{}}, data_dir=Path({str(settings.data_dir)!r}), database_url={database_url!r}
)
state = open_state(settings)
hold = state.credits.hold({key_id}, "the hold's id")
name = asyncio.run(state.results.store(b"picture", "image/png"))
state.credits.capture(hold, PaidResult(name, "image/png"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", dying]).returncode == -signal.SIGKILL
    with open_state(settings) as state:
        assert state.credits.balance(key_id) == 1
        query = sa.select(STORED_RESULTS.c.file_name).where(
            STORED_RESULTS.c.request_id == "the hold's id", STORED_RESULTS.c.key_id == key_id
        )
        with state.database.read() as connection:
            file_name = connection.execute(query).scalar_one()
        assert asyncio.run(state.results.find(file_name)) is not None
        (path,) = settings.results_dir.rglob(file_name)
        assert path.read_bytes() == b"picture"


def test_a_database_that_is_locked_is_waited_for(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        file = settings.data_dir / "upscaled.sqlite3"
        with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            ending = threading.Timer(1, other.execute, ["COMMIT"])
            ending.start()
            assert key_with(state, 1) == 1
            ending.join()


def test_a_new_database_is_distinguished_from_an_existing_one(
    empty_database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=empty_database_url)
    with open_state(settings) as state:
        assert state.is_new
    with open_state(settings) as state:
        assert not state.is_new


def test_sweeps_of_two_front_ends_at_once_agree(make_settings: MakeSettings, clock: Clock) -> None:
    with (
        open_state(make_settings(), all_of(clock)) as first,
        open_state(make_settings(), all_of(clock)) as second,
    ):
        for _ in range(50):
            asyncio.run(first.results.store(b"x", "image/png"))
        clock.now_s += 3600
        counts: list[SweptResults] = []
        threads = [
            threading.Thread(target=lambda state=state: counts.append(state.sweep().results))
            for state in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(count.removed for count in counts) == 50
