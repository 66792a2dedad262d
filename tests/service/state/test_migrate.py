"""Migrations: from nothing, from version 1, by several processes at once, and never backwards."""

import asyncio
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import upscaled.state.migrations
from tests.service.state.conftest import Clock, MakeSettings, all_of
from upscaled.state import PaidResult, RateLimit, open_state
from upscaled.state.database import open_database
from upscaled.state.errors import DatabaseRefused
from upscaled.state.key_rows import hash_secret
from upscaled.state.migrate import read_revision
from upscaled.state.migrations import SCHEMA_REVISION
from upscaled.state.schema import METADATA

VERSION_1 = Path(__file__).with_name("version_1.sql")
# The key whose hash is in version_1.sql; it never opened anything else.
VERSION_1_SECRET = "upk_00112233aabbccdd_Zm9yLXRlc3RzLW9ubHktbm90LWEtcmVhbC1zZWNyZXQ"


def open_folders(revision_folder: str) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", revision_folder)
    return ScriptDirectory.from_config(config)


def test_the_migrations_make_the_schema_that_the_code_uses(
    empty_database_url: str, make_settings: MakeSettings
) -> None:
    with (
        open_state(make_settings(database_url=empty_database_url)) as state,
        state.database.read() as connection,
    ):
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        inspected = sa.inspect(connection)
        checks = {
            str(check["name"])
            for table in METADATA.tables
            for check in inspected.get_check_constraints(table)
        }
    assert differences == []
    assert checks == {
        "ck_api_keys_balance_is_never_negative",
        "ck_credit_entries_amount_fits_kind",
        "ck_jobs_running_has_a_lease",
        "ck_jobs_state_is_known",
        "ck_webhook_deliveries_state_is_known",
    }


def test_the_revision_in_the_code_is_the_last_migration() -> None:
    scripts = open_folders(str(Path(upscaled.state.migrations.__file__).parent))
    assert scripts.get_heads() == [SCHEMA_REVISION]


def test_a_database_of_version_1_is_brought_here_with_all_it_holds(
    make_settings: MakeSettings,
) -> None:
    """`version_1.sql` is what version 1 wrote, and never changes."""
    settings = make_settings()
    settings.data_dir.mkdir()
    with sqlite3.connect(settings.data_dir / "upscaled.sqlite3") as connection:
        connection.executescript(VERSION_1.read_text())
    connection.close()
    with open_state(settings, all_of(Clock(1_900_000_000))) as state:
        assert [key.name for key in state.keys.list()] == ["web", "old"]
        key = state.keys.verify(VERSION_1_SECRET)
        assert key is not None
        # 10 granted, 1 captured, 1 released; 1 was on hold by a process that has ended.
        assert state.credits.balance(key.id) == 9
        assert [each.rate for each in state.keys.list()] == [RateLimit(), RateLimit()]
        assert state.credits.audit() == ()
        state.credits.capture(state.credits.hold(key.id, "now"))
        assert state.credits.balance(key.id) == 8
        with state.database.read() as connection_now:
            assert read_revision(connection_now) == SCHEMA_REVISION
            assert compare_metadata(MigrationContext.configure(connection_now), METADATA) == []


def test_a_data_folder_of_version_1_is_brought_here_with_its_results(
    make_settings: MakeSettings,
) -> None:
    """Folders and files as 0.1.0 left them: a result, a part file and a holder that was killed."""
    settings = make_settings()
    name = "00c7a59c-04ca-4d24-9f64-3a1f35e8ad31.png"
    for folder in (settings.results_dir / "00", settings.data_dir / "holders"):
        folder.mkdir(parents=True, mode=0o700)
    (settings.results_dir / "00" / name).write_bytes(b"picture")
    (settings.results_dir / "00" / f"{name}.part").write_bytes(b"pic")
    (settings.data_dir / "holders" / "4b1d").touch()
    with closing(sqlite3.connect(settings.data_dir / "upscaled.sqlite3")) as connection:
        connection.executescript(VERSION_1.read_text())
        connection.execute("UPDATE open_holds SET holder_id = '4b1d', held_at_s = 4000000000")
        connection.commit()
    with open_state(settings) as state:
        assert not state.is_new
        assert state.find_trouble() == ""
        key = state.keys.verify(VERSION_1_SECRET)
        assert key is not None
        assert state.credits.balance(key.id) == 9
        assert asyncio.run(state.results.find(name)) is not None
        assert state.sweep().results.removed == 1
        hold = state.credits.hold(key.id, "new")
        state.credits.capture(hold, PaidResult(name, "image/png"))
        assert state.credits.audit() == ()


def test_a_server_of_version_1_is_brought_here_with_all_it_holds(
    empty_server_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=empty_server_url)
    database = open_database(empty_server_url, settings.data_dir)
    with database.write() as connection:
        upgrade(connection, "0001")
        for line in VERSION_1.read_text().splitlines():
            if line.startswith('INSERT INTO "credit_entries"'):  # the server numbers them itself
                columns = "(key_id, request_id, kind, amount, at_s)"
                line = re.sub(r"VALUES\(\d+,", f"{columns} VALUES (", line)
            if line.startswith("INSERT INTO") and "alembic_version" not in line:
                connection.execute(sa.text(line.removesuffix(";")))
    database.close()
    with open_state(settings, all_of(Clock(1_900_000_000))) as state:
        key = state.keys.verify(VERSION_1_SECRET)
        assert key is not None
        assert state.credits.balance(key.id) == 9
        assert state.credits.audit() == ()
        with state.database.read() as connection:
            assert read_revision(connection) == SCHEMA_REVISION
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize("revision", ["0001", "0013"])
def test_keys_and_credits_of_earlier_revisions_are_kept_on_both_databases(
    empty_database_url: str, make_settings: MakeSettings, revision: str
) -> None:
    """A credit that was on hold when the earlier version was killed comes back by its age."""
    settings = make_settings(database_url=empty_database_url)
    settings.data_dir.mkdir()
    database = open_database(empty_database_url, settings.data_dir)
    with database.write() as connection:
        upgrade(connection, revision)
        for statement in (
            "INSERT INTO api_keys (name, public_id, secret_sha256, created_at_s, balance)"
            " VALUES ('web', '00112233aabbccdd', :secret, 1700000000, 3)",
            "INSERT INTO credit_entries (key_id, request_id, kind, amount, at_s)"
            " VALUES (1, 'g', 'grant', 4, 1700000000), (1, 'r', 'hold', -1, 1700000000)",
            "INSERT INTO open_holds (request_id, key_id, holder_id, held_at_s)"
            " VALUES ('r', 1, '4b1d', 1700000000)",
        ):
            values = {"secret": hash_secret(VERSION_1_SECRET)} if ":secret" in statement else {}
            connection.execute(sa.text(statement), values)
    database.close()
    with open_state(settings, all_of(Clock(1_900_000_000))) as state:
        found = state.keys.verify(VERSION_1_SECRET)
        assert found is not None
        assert (found.name, found.balance, found.rate) == ("web", 4, RateLimit())
        assert state.credits.audit() == ()
        state.keys.set_rate("web", RateLimit(0.5, 9))
        found = state.keys.verify(VERSION_1_SECRET)
        assert found is not None
        assert found.rate == RateLimit(0.5, 9)
        state.credits.capture(state.credits.hold(found.id, "new"))
        with state.database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def upgrade(connection: sa.Connection, revision: str) -> None:
    config = Config()
    folder = Path(upscaled.state.migrations.__file__).parent
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("9999", r"9999.*newer version"),
        ("0002", r"0002, of a commit between 0\.1\.0 and 0\.2\.0: start version 0\.2\.0"),
        ("0012", r"0012, of a commit between"),
    ],
)
def test_a_database_of_another_version_is_refused_and_left_alone(
    empty_database_url: str, make_settings: MakeSettings, revision: str, reason: str
) -> None:
    settings = make_settings(database_url=empty_database_url)
    with open_state(settings) as state, state.database.write() as connection:
        connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    with pytest.raises(DatabaseRefused, match=reason):
        open_state(settings)
    url = sa.make_url(empty_database_url)
    driver = "sqlite" if url.drivername == "sqlite" else "postgresql+psycopg"
    engine = sa.create_engine(url.set(drivername=driver))
    with engine.connect() as connection:
        assert read_revision(connection) == revision
    engine.dispose()


@pytest.mark.parametrize(
    "empty_database_url",
    [pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"],
    indirect=True,
)
def test_processes_that_start_at_once_all_find_the_schema(
    empty_database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=empty_database_url)
    # One process loads the code and becomes four, that all wait for the same pipe to close.
    opening = f"""
import os
from pathlib import Path
import alembic.command
from upscaled.config import load_settings
from upscaled.state import PaidResult, open_state
settings = load_settings(
    {{}}, data_dir=Path({str(settings.data_dir)!r}), database_url={empty_database_url!r}
)
waiting, start = os.pipe()
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        os.close(start)
        os.read(waiting, 1)
        with open_state(settings) as state:
            state.keys.create(f"key{{number}}")
        os._exit(0)
    children.append(child)
os.close(start)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    done = subprocess.run([sys.executable, "-c", opening], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{[0] * 4}\n", "")
    with open_state(settings) as state:
        assert sorted(state.keys.names()) == [f"key{number}" for number in range(4)]


def test_a_second_start_changes_nothing(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with open_state(settings) as state:
        secret = state.keys.create("web", credits=2)
    with open_state(settings) as state:
        assert state.keys.verify(secret) is not None
        assert state.credits.show("web") == 2
