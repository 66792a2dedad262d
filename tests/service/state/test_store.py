"""The state as a whole: what its health means and what a sweep takes."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from service.config import Settings
from service.errors import RateLimitExceeded
from service.state import State, open_state
from service.state.results import SweptResults
from service.state.store import MIN_FREE_BYTES, longest_request_s
from tests.service.state.conftest import Clock
from tests.service.state.disks import small_disk


def test_a_new_state_is_healthy(database_url: str, make_settings: Callable[..., Settings]) -> None:
    with open_state(make_settings(database_url=database_url)) as state:
        assert state.is_healthy()


def test_the_rate_is_the_settings_own(make_settings: Callable[..., Settings]) -> None:
    with open_state(make_settings(rate_per_s=0.1, rate_burst=2)) as state:
        state.rate.take(1)
        state.rate.take(1)
        with pytest.raises(RateLimitExceeded) as refused:
            state.rate.take(1)
    assert refused.value.retry_after_s == 10


def test_a_database_whose_tables_are_gone_is_not_healthy(state: State) -> None:
    with state.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO elsewhere")
    assert not state.is_healthy()
    with state.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO api_keys")
    assert state.is_healthy()


def test_a_server_that_went_away_is_not_healthy_and_comes_back(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> None:
    server = request.getfixturevalue("postgresql")
    server.run("CREATE DATABASE health")
    with open_state(make_settings(database_url=server.url("health"))) as state:
        server.run("ALTER DATABASE health ALLOW_CONNECTIONS false")
        server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'health'"
        )
        assert not state.is_healthy()
        server.run("ALTER DATABASE health ALLOW_CONNECTIONS true")
        assert state.is_healthy()


def test_a_state_can_be_closed_while_its_server_is_away(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> None:
    server = request.getfixturevalue("postgresql")
    server.run("CREATE DATABASE closing")
    settings = make_settings(database_url=server.url("closing"))
    with open_state(settings) as state:
        key = state.keys.verify(state.keys.create("web", credits=1))
        assert key is not None
        state.credits.hold(key.id, "r1")
        server.run("ALTER DATABASE closing ALLOW_CONNECTIONS false")
        server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'closing'"
        )
    server.run("ALTER DATABASE closing ALLOW_CONNECTIONS true")
    with open_state(settings) as state:
        assert state.credits.show("web") == 1


def test_a_full_disk_is_not_healthy_until_there_is_space_again(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    filler = settings.data_dir / "filler"
    with small_disk(settings.data_dir, MIN_FREE_BYTES + 20_000_000), open_state(settings) as state:
        assert state.is_healthy()
        filler.write_bytes(b"x" * 25_000_000)
        assert not state.is_healthy()
        filler.unlink()
        assert state.is_healthy()


def test_a_database_on_a_full_disk_refuses_and_recovers_whole(
    make_settings: Callable[..., Settings],
) -> None:
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
        except OperationalError:
            return number
        try:
            state.credits.capture(hold)
        except OperationalError:
            return number + 1
    raise AssertionError("the disk never filled up")


def test_a_sweep_counts_results_and_holds(
    make_settings: Callable[..., Settings], clock: Clock
) -> None:
    settings = make_settings(work_timeout_s=1)
    with open_state(settings, clock) as state:
        key = state.keys.verify(state.keys.create("web", credits=1))
        assert key is not None
        state.credits.hold(key.id, "r1")
        state.results.store(b"x", "image/png")
        clock.now_s += max(settings.result_ttl_s, longest_request_s(settings)) + 1
        first, second = state.sweep(), state.sweep()
    assert (first.holds_released, first.results.removed) == (1, 1)
    assert (second.holds_released, second.results) == (0, SweptResults())
    assert first.free_bytes > 0


def test_opening_sweeps_what_expired_while_nothing_ran(
    make_settings: Callable[..., Settings], clock: Clock
) -> None:
    settings = make_settings()
    with open_state(settings, clock) as state:
        state.results.store(b"x", "image/png")
    clock.now_s += settings.result_ttl_s
    with open_state(settings, clock):
        assert not [path for path in settings.results_dir.rglob("*") if path.is_file()]


def test_sweeps_of_two_front_ends_at_once_agree(
    make_settings: Callable[..., Settings], clock: Clock
) -> None:
    with open_state(make_settings(), clock) as first, open_state(make_settings(), clock) as second:
        for _ in range(50):
            first.results.store(b"x", "image/png")
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
