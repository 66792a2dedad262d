"""The connection: durable and private on SQLite, clear about what it refuses."""

import asyncio
import builtins
import os
import sqlite3
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tests.databases import PostgreSQL
from tests.service.state.conftest import MakeSettings
from tests.service.state.disks import small_disk
from upscaled.state import State, StateError, hide_password, open_state
from upscaled.state.database import open_database
from upscaled.state.errors import DatabaseFailed, DatabaseRefused


def pragma(state: State, name: str) -> object:
    with state.database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_keeps_what_was_committed_and_lets_readers_read(state: State) -> None:
    assert pragma(state, "journal_mode") == "wal"
    assert pragma(state, "synchronous") == 2  # FULL: a power cut loses no committed charge
    assert pragma(state, "busy_timeout") == 15_000


def test_foreign_keys_are_enforced(state: State) -> None:
    insert = "INSERT INTO open_holds VALUES ('r1', 99, 'h', 0)"
    with pytest.raises(IntegrityError), state.database.write() as connection:
        connection.execute(sa.text(insert))


def test_a_write_that_raises_is_undone(state: State) -> None:
    insert = (
        "INSERT INTO api_keys (id, name, public_id, secret_sha256, created_at_s, balance)"
        " VALUES (1, 'web', 'id', 'hash', 0, 0)"
    )
    with suppress(ZeroDivisionError), state.database.write() as connection:
        connection.execute(sa.text(insert))
        raise ZeroDivisionError
    assert state.keys.is_empty()


def test_a_write_holds_the_lock_from_its_first_statement(
    state: State, make_settings: MakeSettings
) -> None:
    """So that two processes never both read a balance and then both change it."""
    order: list[str] = []
    with open_state(make_settings()) as other:

        def write_too() -> None:
            with other.database.write():
                order.append("second")

        with state.database.write():
            thread = threading.Thread(target=write_too)
            thread.start()
            thread.join(0.2)
            order.append("first")
        thread.join()
    assert order == ["first", "second"]


def test_a_start_waits_for_a_writer_of_a_file_that_is_not_switched_yet(
    make_settings: MakeSettings,
) -> None:
    """As when two processes make the database at once, or after it came back from a backup."""
    settings = make_settings()
    settings.data_dir.mkdir()
    file = settings.data_dir / "upscaled.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE other (id)")
        ending = threading.Timer(0.3, writer.execute, ["COMMIT"])
        ending.start()
        with open_state(settings) as state:
            assert pragma(state, "journal_mode") == "wal"
        ending.join()


def test_files_are_their_owners_only(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        state.keys.create("web")
        modes = {path.name: path.stat().st_mode & 0o777 for path in settings.data_dir.iterdir()}
    folders = [modes.pop(name) for name in ("holders", "job-results", "results")]
    assert folders == [0o700] * 3
    assert set(modes) == {"upscaled.sqlite3", "upscaled.sqlite3-wal", "upscaled.sqlite3-shm"}
    assert set(modes.values()) == {0o600}
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700


def test_no_umask_opens_anything_to_others(make_settings: MakeSettings) -> None:
    settings = make_settings()
    before = os.umask(0)
    try:
        with open_state(settings) as state:
            state.keys.create("web", credits=1)
            state.credits.hold(1, "r1")
            asyncio.run(state.results.store(b"x", "image/png"))
            assert state.find_trouble() == ""
            paths = [settings.data_dir, *settings.data_dir.rglob("*")]
            modes = {path: path.stat().st_mode & 0o777 for path in paths}
    finally:
        os.umask(before)
    assert {mode for path, mode in modes.items() if path.is_dir()} <= {0o700}
    assert len([path for path in modes if path.suffix in (".png", ".sqlite3")]) == 2
    assert {mode for mode in modes.values() if mode != 0o700} == {0o600}


def test_a_data_folder_that_exists_keeps_its_mode(make_settings: MakeSettings) -> None:
    """It may be anything, a home or /tmp: its owner's business."""
    settings = make_settings()
    settings.data_dir.mkdir(mode=0o755)
    with open_state(settings):
        assert settings.data_dir.stat().st_mode & 0o777 == 0o755
        assert (settings.data_dir / "upscaled.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_data_folder_with_odd_characters_works(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(data_dir=tmp_path / "a b%41é?#&;'")
    with open_state(settings) as state:
        assert not state.find_trouble()
    assert (settings.data_dir / "upscaled.sqlite3").exists()


def test_a_sqlite_url_names_the_file(make_settings: MakeSettings, tmp_path: Path) -> None:
    with open_state(make_settings(database_url=f"sqlite:///{tmp_path}/sub/keys.db")) as state:
        state.keys.create("web")
    assert (tmp_path / "sub" / "keys.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "database_url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:geheim@h/d",
        "oracle://u:geheim@h/d",
        "ftp://u:geheim@h/d",
        "postgresql://u:gehe@im@h/d",
        "postgresql://u@h:geheim/d",
    ],
)
def test_other_databases_are_refused_without_their_password(
    tmp_path: Path, database_url: str
) -> None:
    with pytest.raises(DatabaseRefused, match="UPSCALED_DATABASE_URL") as refused:
        open_database(database_url, tmp_path)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_server_that_is_away_is_named_without_its_password(
    tmp_path: Path, scheme: str
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(DatabaseRefused, match="cannot open the database") as refused:
        open_database(f"{scheme}://u:geheim@127.0.0.1:1/d?passfile=geheim", tmp_path)
    assert "127.0.0.1" in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_a_server_accepts_a_password_of_any_characters_as_it_is(
    postgresql: PostgreSQL, server_url: str, make_settings: MakeSettings
) -> None:
    password = "p@ss/w:rd%40 #?$'"
    hba = postgresql.folder / "data" / "pg_hba.conf"
    hba.write_text("local all with_password scram-sha-256\n" + hba.read_text())
    literal = password.replace("'", "''")
    postgresql.run(f"CREATE ROLE with_password SUPERUSER LOGIN PASSWORD '{literal}'")
    postgresql.run("SELECT pg_reload_conf()")
    url = server_url.replace("tester@", "with_password@")
    try:
        with open_state(make_settings(database_url=url, database_password=password)) as state:
            assert state.find_trouble() == ""
        with pytest.raises(DatabaseRefused, match="password authentication failed") as refused:
            open_state(make_settings(database_url=url, database_password=password + "x"))
        assert "ss/w" not in str(refused.value)
    finally:
        postgresql.run("DROP ROLE with_password")


@pytest.mark.parametrize(
    "url",
    ["", "sqlite:////tmp/a", "postgresql://u:p@h/d", "postgresql://h/d", "postgresql://u:@h/d"],
)
def test_a_password_that_no_url_needs_is_refused_and_not_shown(
    make_settings: MakeSettings, url: str
) -> None:
    with pytest.raises(DatabaseRefused, match="UPSCALED_DATABASE_PASSWORD is set") as refused:
        open_state(make_settings(database_url=url, database_password="geheim"))
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
def test_a_database_of_any_encoding_keeps_names(
    encoding: str, postgresql: PostgreSQL, make_settings: MakeSettings
) -> None:
    """An unencoded one (initdb without a locale) would give bytes in place of texts."""
    options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    for url in postgresql.lend(options):
        with open_state(make_settings(database_url=url)) as state:
            state.keys.create("web", credits=3)
            assert [key.name for key in state.keys.list()] == ["web"]


def test_a_read_is_no_transaction_on_a_server_and_leaves_those_of_writes(
    server_url: str, make_settings: MakeSettings
) -> None:
    """BEGIN and ROLLBACK would be two more round trips for each request's key."""

    def is_in_transaction(connection: sa.Connection) -> bool:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    with open_state(make_settings(database_url=server_url)) as state:
        for run, is_transaction in (
            (state.database.read, False),
            (state.database.write, True),
            (state.database.rehearse, True),
            (state.database.read, False),
        ):
            with run() as connection:
                connection.execute(sa.text("SELECT 1"))
                assert is_in_transaction(connection) == is_transaction


def test_a_rehearsal_changes_nothing(database_url: str, make_settings: MakeSettings) -> None:
    with open_state(make_settings(database_url=database_url)) as state:
        state.keys.create("web", credits=3)
        with state.database.rehearse() as connection:
            connection.execute(sa.text("UPDATE api_keys SET balance = 9"))
        assert state.credits.show("web") == 3


def test_a_missing_driver_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def refuse_psycopg(name: str, *rest: object, **more: object) -> object:
        if name == "psycopg":
            raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
        return real_import(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse_psycopg)
    with pytest.raises(
        DatabaseRefused, match=rf"{sys.executable} -m pip install -r requirements-extras.lock"
    ):
        open_database("postgresql://u@127.0.0.1:1/d", tmp_path)


def test_a_file_that_is_no_database_is_refused(make_settings: MakeSettings) -> None:
    settings = make_settings()
    settings.data_dir.mkdir()
    (settings.data_dir / "upscaled.sqlite3").write_bytes(b"not a database " * 100)
    with pytest.raises(DatabaseRefused, match="not a database"):
        open_state(settings)


@pytest.mark.parametrize(
    ("database_url", "shown"),
    [
        ("postgresql://u:geheim@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?password=geheim&user=u", "postgresql://h/d?password=***&user=u"),
        ("postgresql://h/d?sslpassword=geheim", "postgresql://h/d?sslpassword=***"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("geheim", "***"),
        ("postgresql://u:gehe@im@h/d", "***"),
        ("postgresql://u@h:geheim/d", "***"),
    ],
)
def test_a_shown_url_has_no_password(database_url: str, shown: str) -> None:
    assert hide_password(database_url) == shown


def test_a_database_failure_is_one_line_without_the_statement(make_settings: MakeSettings) -> None:
    with open_state(make_settings()) as state:
        with (
            pytest.raises(DatabaseFailed, match="no such table: missing") as failure,
            state.database.write() as connection,
        ):
            connection.exec_driver_sql("DELETE FROM missing")
        assert str(failure.value) == "the database does not work: no such table: missing"
        assert not failure.value.is_connection_lost


def test_a_start_on_a_full_disk_names_the_cause(make_settings: MakeSettings) -> None:
    """SQLite itself calls it an I/O error."""
    settings = make_settings()
    settings.data_dir.mkdir(parents=True)
    with small_disk(settings.data_dir, 1_000_000):
        with open_state(settings):
            pass
        filler = settings.data_dir / "filler"
        with suppress(OSError):
            filler.write_bytes(b"x" * 2_000_000)
        with pytest.raises(StateError, match="its disk is probably full"):
            open_state(settings)
        filler.unlink()
        with open_state(settings):
            pass


def test_a_disk_that_does_not_work_is_not_waited_for(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a busy file is tried again; here SQLite cannot write its journal."""
    settings = make_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    file = settings.data_dir / "upscaled.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (n)")
    file.with_name(file.name + "-journal").mkdir()
    waits: list[float] = []
    monkeypatch.setattr("upscaled.state.engines.time.sleep", waits.append)
    monkeypatch.setattr("upscaled.state.engines.BUSY_TIMEOUT_S", 0.2)

    with pytest.raises(StateError, match="cannot open the database"):
        open_state(settings)

    assert waits == []


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a transaction that has just found the right file at the path."""
    monkeypatch.setattr("upscaled.state.database.Database.check_file", lambda _self: None)


@pytest.mark.usefixtures("unchecked")
def test_a_connection_opened_while_the_file_is_away_makes_no_new_file(tmp_path: Path) -> None:
    with closing(open_database("", tmp_path)) as database, database.read():
        file = tmp_path / "upscaled.sqlite3"
        aside = file.rename(tmp_path / "aside")
        with pytest.raises(DatabaseFailed, match="unable to open"), database.read():
            pass
        assert not file.exists()
        aside.rename(file)
        with database.read():
            pass


@pytest.mark.usefixtures("unchecked")
def test_a_connection_to_another_file_at_the_path_is_not_kept(tmp_path: Path) -> None:
    with closing(open_database("", tmp_path)) as database:
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE t (n)")
        with database.read():
            file = tmp_path / "upscaled.sqlite3"
            aside = file.rename(tmp_path / "aside")
            file.touch()
            with pytest.raises(DatabaseFailed, match="was replaced"), database.read():
                pass
            aside.rename(file)
            with database.read() as connection:
                assert not connection.exec_driver_sql("SELECT * FROM t").all()
