"""Whatever would make requests fail is found and named, and nothing is charged meanwhile."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.state.conftest import MakeSettings, key_with
from tests.service.state.disks import closed_to_us, small_disk
from upscaled.config import Settings
from upscaled.state import State, open_state
from upscaled.state.errors import DatabaseFailed, FolderUnusable
from upscaled.state.store import MIN_FREE_BYTES


def test_a_new_state_is_healthy(database_url: str, make_settings: MakeSettings) -> None:
    with open_state(make_settings(database_url=database_url)) as state:
        assert not state.find_trouble()


def test_a_database_without_its_tables_is_not_healthy(state: State) -> None:
    with state.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO elsewhere")
    assert state.find_trouble()
    with state.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO api_keys")
    assert not state.find_trouble()


def test_a_server_that_refuses_connections_is_unhealthy_until_it_accepts_them(
    request: pytest.FixtureRequest, make_settings: MakeSettings
) -> None:
    server = request.getfixturevalue("postgresql")
    server.run("CREATE DATABASE health")
    with open_state(make_settings(database_url=server.url("health"))) as state:
        server.run("ALTER DATABASE health ALLOW_CONNECTIONS false")
        server.run(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = 'health'"
        )
        assert state.find_trouble()
        server.run("ALTER DATABASE health ALLOW_CONNECTIONS true")
        assert not state.find_trouble()


def test_a_full_disk_is_not_healthy_until_there_is_space_again(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    filler = settings.data_dir / "filler"
    with small_disk(settings.data_dir, MIN_FREE_BYTES + 20_000_000), open_state(settings) as state:
        assert not state.find_trouble()
        filler.write_bytes(b"x" * 25_000_000)
        assert state.find_trouble()
        filler.unlink()
        assert not state.find_trouble()


Break = Callable[[Settings], None]


def _delete_data(settings: Settings) -> None:
    shutil.rmtree(settings.data_dir)


def _delete_database(settings: Settings) -> None:
    (settings.data_dir / "upscaled.sqlite3").unlink()


def _replace_database(settings: Settings) -> None:
    file = settings.data_dir / "upscaled.sqlite3"
    shutil.copy(file, file.with_name("backup"))
    file.with_name("backup").rename(file)


def _put_a_file_in_place_of_results(settings: Settings) -> None:
    shutil.rmtree(settings.results_dir)
    settings.results_dir.write_bytes(b"")


def _let_results_lead_nowhere(settings: Settings) -> None:
    shutil.rmtree(settings.results_dir)
    settings.results_dir.symlink_to("/nonexistent/folder")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (_delete_data, "upscaled.sqlite3: was deleted while in use"),
        (_delete_database, "upscaled.sqlite3: was deleted while in use"),
        (_replace_database, "upscaled.sqlite3: was replaced while in use"),
        (_put_a_file_in_place_of_results, "cannot store a result: File exists"),
        (_let_results_lead_nowhere, "cannot store a result: File exists"),
    ],
)
def test_trouble_is_found_and_named(
    make_settings: MakeSettings, break_it: Break, reason: str
) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        assert state.find_trouble() == ""
        break_it(settings)
        assert reason in state.find_trouble()


def test_a_data_folder_that_may_not_be_entered_any_more_is_named_with_what_to_do(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        with closed_to_us(settings.data_dir):
            trouble = state.find_trouble()
        assert "upscaled.sqlite3: cannot be reached any more: Permission denied" in trouble
        assert "give its folders and it back to the user that runs the service" in trouble
        assert state.find_trouble() == ""


@pytest.mark.parametrize("break_it", [_delete_data, _delete_database, _replace_database])
def test_no_step_of_billing_succeeds_where_the_database_was_deleted(
    make_settings: MakeSettings, break_it: Break
) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        key_id = key_with(state, 2)
        hold = state.credits.hold(key_id, "r1")
        break_it(settings)
        for step in (
            lambda: state.keys.verify(f"upk_{'0' * 16}_{'A' * 43}"),
            lambda: state.credits.hold(key_id, "r2"),
            lambda: state.credits.capture(hold),
            lambda: state.credits.balance(key_id),
        ):
            with pytest.raises((DatabaseFailed, FolderUnusable)):
                step()
        assert len(state.credits.pending) == 0


def test_a_results_folder_that_was_deleted_is_made_again(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        shutil.rmtree(settings.results_dir)
        assert state.find_trouble() == ""
        assert settings.results_dir.stat().st_mode & 0o777 == 0o700


def test_a_results_folder_may_be_a_link_to_another_disk(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings()
    (tmp_path / "large").mkdir()
    settings.data_dir.mkdir()
    settings.results_dir.symlink_to(tmp_path / "large")
    with open_state(settings) as state:
        assert state.find_trouble() == ""
        name = asyncio.run(state.results.store(b"x", "image/png"))
        assert asyncio.run(state.results.find(name)) is not None


def test_full_results_are_trouble_where_only_they_lie_on_a_full_disk(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()
    with open_state(settings) as state, small_disk(settings.results_dir, 32 * 1024):
        assert "No space left on device" in state.find_trouble()
        assert not [path for path in settings.results_dir.rglob("*") if path.is_file()]


def test_a_disk_that_cannot_be_written_to_is_trouble_until_it_does_again(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings()
    settings.results_dir.mkdir(parents=True)
    with (
        small_disk(settings.results_dir, MIN_FREE_BYTES + 20_000_000),
        open_state(settings) as state,
    ):
        remount(settings.results_dir, "ro")
        assert "cannot store a result: Read-only file system" in state.find_trouble()
        remount(settings.results_dir, "rw")
        assert state.find_trouble() == ""


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def test_a_trial_leaves_no_file(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        assert state.find_trouble() == ""
        assert not [path for path in settings.results_dir.rglob("*") if path.is_file()]
