import shutil
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from tests.databases import PostgreSQL
from tests.listening import free_port
from tests.service.doctor.conftest import MakeSettings
from tests.service.state.disks import small_disk
from upscaled.config import Settings
from upscaled.doctor.database import check_database
from upscaled.doctor.finding import Status
from upscaled.state import open_state
from upscaled.state.database_url import parse_database_url
from upscaled.state.migrations import SCHEMA_REVISION


def test_a_database_yet_to_be_made_is_fine_and_not_made(make_settings: MakeSettings) -> None:
    settings = make_settings()
    (finding,) = check_database(settings)
    assert finding.status is Status.OK
    assert "will be made at the first start" in finding.found
    assert not settings.data_dir.exists()


def test_a_database_in_use_is_writable(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings):
        (finding,) = check_database(settings)
    assert finding.status is Status.OK
    assert f"writable, schema {SCHEMA_REVISION}" in finding.found


def test_no_file_of_a_database_is_written(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Neither while a service runs, nor after it was killed, nor after it has ended."""
    settings = make_settings()
    killed = settings.model_copy(update={"data_dir": tmp_path / "killed"})

    def check(settings: Settings) -> None:
        before = _files(settings.data_dir)
        (finding,) = check_database(settings)
        assert finding.status is Status.OK
        assert _files(settings.data_dir) == before

    with open_state(settings) as state:
        state.keys.create("shop", credits=5)
        shutil.copytree(settings.data_dir, killed.data_dir)
        check(settings)
    check(settings)
    assert "upscaled.sqlite3-wal" in _files(killed.data_dir)
    check(killed)


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.glob("upscaled.sqlite3*")
        if not path.name.endswith("-shm")  # readers' locks
    }


def test_a_file_without_the_right_to_write_is_a_failure(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    with open_state(settings):
        pass
    # Root may write whatever a file's mode says.
    monkeypatch.setattr("os.access", lambda path, _mode: path.name != "upscaled.sqlite3")
    (finding,) = check_database(settings)
    assert finding.status is Status.FAILURE
    assert "cannot be written by user" in finding.found
    assert "UPSCALED_DATABASE_URL" not in finding.advice


def test_a_file_on_a_full_disk_is_a_failure(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    with small_disk(settings.data_dir, 2**20):
        with open_state(settings):
            pass
        with suppress(OSError):
            (settings.data_dir / "others").write_bytes(bytes(2**20))
        (finding,) = check_database(settings)
    assert finding.status is Status.FAILURE
    assert "No space left on device" in finding.found
    assert "free its disk" in finding.advice


def test_a_file_on_a_disk_that_takes_no_writes_is_a_failure(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    with small_disk(settings.data_dir, 2**20):
        with open_state(settings):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(settings.data_dir)], check=True)
        (finding,) = check_database(settings)
    assert finding.status is Status.FAILURE
    assert "Read-only file system" in finding.found


def test_a_damaged_file_is_to_be_restored_from_a_backup(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings):
        pass
    file = settings.data_dir / "upscaled.sqlite3"
    pages = file.read_bytes()
    for damaged in (pages[: len(pages) // 4], pages[:8192] + bytes(len(pages) - 8192)):
        file.write_bytes(damaged)
        (finding,) = check_database(settings)
        assert finding.status is Status.FAILURE
        assert "malformed" in finding.found
        assert "restore a backup" in finding.advice
        assert "UPSCALED_DATABASE_URL" not in finding.advice


def test_a_server_that_does_not_answer_is_a_failure_that_hides_the_password(
    make_settings: MakeSettings,
) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql://u:geheim@127.0.0.1:{free_port()}/d"
    (finding,) = check_database(make_settings(database_url=url))
    assert finding.status is Status.FAILURE
    assert "Connection refused" in finding.found
    assert "geheim" not in finding.found
    assert "\n" not in finding.found


def test_a_url_of_another_kind_is_a_failure(make_settings: MakeSettings) -> None:
    (finding,) = check_database(make_settings(database_url="mysql://h/d"))
    assert finding.status is Status.FAILURE
    assert "must be sqlite:///FILE or postgresql://" in finding.found


def test_a_file_that_is_no_database_is_a_failure(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    (settings.data_dir / "upscaled.sqlite3").write_bytes(b"no database" * 100)
    (finding,) = check_database(settings)
    assert finding.status is Status.FAILURE
    assert "not a database" in finding.found


@pytest.mark.parametrize(
    ("revision", "status", "said"),
    [
        ("0000", Status.WARNING, "is older than"),
        ("0005", Status.FAILURE, "is of a commit between 0.1.0 and 0.2.0"),
        ("9999", Status.FAILURE, "is newer than"),
    ],
)
def test_another_schema_is_reported(
    revision: str, status: Status, said: str, make_settings: MakeSettings
) -> None:
    settings = make_settings()
    with open_state(settings):
        pass
    with sqlite3.connect(settings.data_dir / "upscaled.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()
    (finding,) = check_database(settings)
    assert finding.status is status
    assert said in finding.found


def test_credits_that_do_not_add_up_are_a_failure(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        state.keys.create("shop", credits=5)
        assert len(check_database(settings)) == 1
    with sqlite3.connect(settings.data_dir / "upscaled.sqlite3") as connection:
        connection.execute("UPDATE api_keys SET balance = balance + 1")
    connection.close()
    _, ledger = check_database(settings)
    assert (ledger.check, ledger.status) == ("credits", Status.FAILURE)
    assert "balance 6, its entries add up to 5" in ledger.found


def test_sqlite_on_a_network_s_disk_is_a_warning(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings()
    with open_state(settings):
        pass
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nserver:/export {settings.data_dir} nfs4 rw 0 0\n")
    (finding,) = check_database(settings, mounts)
    assert finding.status is Status.WARNING
    assert "nfs4" in finding.found


def test_the_schema_and_the_clock_of_a_server_are_read(
    make_settings: MakeSettings, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql.run("CREATE DATABASE doctor")
    settings = make_settings(database_url=postgresql.url("doctor"))
    empty, clock = check_database(settings)
    assert (empty.status, clock.status) == (Status.OK, Status.OK)
    assert "empty" in empty.found
    with open_state(settings):
        pass
    url = parse_database_url(settings.database_url, settings.data_dir)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        version_of_row = sa.text("SELECT xmin::text FROM alembic_version")
        before = connection.execute(version_of_row).scalar()
        database, _ = check_database(settings)
        assert connection.execute(version_of_row).scalar() == before, "the row is written anew"
    assert database.found == f"PostgreSQL: writable, schema {SCHEMA_REVISION}"
    early = SimpleNamespace(time=lambda: 1_700_000_000.0)
    monkeypatch.setattr("upscaled.doctor.database.time", early)
    _, drift = check_database(settings)
    assert drift.status is Status.FAILURE
    assert "ahead of this machine's" in drift.found
    postgresql.run("DROP DATABASE doctor WITH (FORCE)")
