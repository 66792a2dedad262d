"""What a test leaves in its database on PostgreSQL does not reach the next one."""

from contextlib import ExitStack, closing, contextmanager
from threading import Timer

import psutil
import pytest

from tests.databases import PostgreSQL

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

NEW_KEY = """
INSERT INTO api_keys (public_id, name, secret_sha256, created_at_s, balance)
VALUES ('', 'a', '', 0, 0) RETURNING id
"""


def test_a_database_that_is_lent_again_holds_no_row_and_counts_from_the_start(
    postgresql: PostgreSQL,
) -> None:
    lend = contextmanager(postgresql.lend_with_tables)
    found = []
    for _ in range(2):
        with lend() as url, psycopg.connect(url) as connection:
            before = connection.execute("SELECT count(*) FROM api_keys").fetchone()
            found.append((url, before, connection.execute(NEW_KEY).fetchone()))
    assert found == [found[0], found[0]]
    assert found[0][1:] == ((0,), (1,))


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE another (id int)",
        "CREATE VIEW another AS SELECT 1 AS id",
        "ALTER TABLE api_keys ADD COLUMN another int",
        "ALTER TABLE api_keys DROP COLUMN name",
    ],
)
def test_a_database_whose_tables_were_changed_is_not_lent_again(
    postgresql: PostgreSQL, change: str
) -> None:
    lend = contextmanager(postgresql.lend_with_tables)
    with lend() as changed, psycopg.connect(changed) as connection:
        connection.execute(change)
    with lend() as url:
        assert url != changed


def test_a_connection_that_was_left_open_keeps_no_lock(postgresql: PostgreSQL) -> None:
    """Even if its process on the server ends late: here, it first stands still."""
    lend = contextmanager(postgresql.lend_with_tables)
    with ExitStack() as ends:
        with lend() as url:
            left = ends.enter_context(closing(psycopg.connect(url)))
            left.execute("SELECT pg_advisory_lock(1)")
            process = psutil.Process(left.info.backend_pid)
            process.suspend()
            going_on = Timer(0.5, process.resume)
            going_on.start()
            ends.callback(going_on.join)
        with lend() as again, psycopg.connect(again) as connection:
            taken = connection.execute("SELECT pg_try_advisory_lock(1)").fetchone()
            assert (again, taken) == (url, (True,))
