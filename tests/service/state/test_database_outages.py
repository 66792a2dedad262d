"""A PostgreSQL that hangs or is out of reach costs no credit, and is used again by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress

import pytest
import sqlalchemy as sa

from tests.databases import PostgreSQL
from tests.service.api.waiting import wait_until
from tests.service.state.conftest import MakeSettings, key_with
from tests.service.state.tcp_proxy import TcpProxy
from upscaled.config import Settings
from upscaled.state import State, open_state
from upscaled.state.errors import DatabaseFailed, HoldReleased
from upscaled.state.schema import CREDIT_ENTRIES

CREDITS = 100_000


@pytest.fixture
def proxy(postgresql: PostgreSQL) -> Iterator[TcpProxy]:
    opened = TcpProxy(postgresql.folder / ".s.PGSQL.5432")
    yield opened
    opened.close()


@pytest.fixture
def behind_proxy(server_url: str, proxy: TcpProxy) -> str:
    """The URL of an empty database behind the proxy."""
    name = sa.make_url(server_url).database
    return f"postgresql://tester@127.0.0.1:{proxy.port}/{name}?sslmode=disable"


def spend_until(ended: threading.Event, state: State, key_id: int, name: str) -> int:
    """Hold and capture credits as requests do, and return how many images were delivered."""
    delivered = number = 0
    while not ended.is_set():
        number += 1
        try:
            hold = state.credits.hold(key_id, f"{name}-{number}")
        except DatabaseFailed:
            time.sleep(0.05)
            continue
        try:
            state.credits.capture(hold)
            delivered += 1
        except (DatabaseFailed, HoldReleased):
            state.credits.pending.add(hold)
    return delivered


def check_outage(
    settings: Settings,
    patient: Settings,
    outage: Callable[[], AbstractContextManager[None]],
    *,
    for_s: float,
) -> None:
    """Let four clients spend before, during and after an outage; then all has to add up.

    `patient`: of the same database, which may take longer to answer than the clients wait.
    """
    ended = threading.Event()
    with open_state(patient) as state:
        key_id = key_with(state, CREDITS)
    with open_state(settings) as state, ThreadPoolExecutor(4) as threads:
        clients = [
            threads.submit(spend_until, ended, state, key_id, str(each)) for each in range(4)
        ]
        time.sleep(0.3)
        with outage():
            time.sleep(for_s)
        before = count_captures_when_it_answers(state)
        while count_captures_when_it_answers(state) < before + 8:
            time.sleep(0.05)
        ended.set()
        delivered = sum(client.result() for client in clients)
        while state.credits.retry_pending().failure is not None:
            time.sleep(0.05)
        assert len(state.credits.pending) == 0
        with open_state(patient) as other:
            assert other.credits.balance(key_id) == CREDITS - delivered
            assert other.credits.audit() == ()
        wait_until(lambda: state.find_trouble() == "")


def count_captures_when_it_answers(state: State) -> int:
    query = sa.select(sa.func.count()).where(CREDIT_ENTRIES.c.kind == "capture")
    while True:
        try:
            with state.database.read() as connection:
                return int(connection.execute(query).scalar_one())
        except DatabaseFailed:
            time.sleep(0.05)


@pytest.mark.parametrize("seconds", [1.5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_network_that_is_cut_loses_no_credit(
    behind_proxy: str, proxy: TcpProxy, make_settings: MakeSettings, seconds: float
) -> None:
    settings = make_settings(database_url=behind_proxy, database_timeout_s=1)
    patient = make_settings(database_url=behind_proxy)
    check_outage(settings, patient, proxy.cut, for_s=seconds)


@pytest.mark.parametrize("seconds", [1.5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_server_that_hangs_loses_no_credit(
    server_url: str, postgresql: PostgreSQL, make_settings: MakeSettings, seconds: float
) -> None:
    settings = make_settings(database_url=server_url, database_timeout_s=1)
    patient = make_settings(database_url=server_url)
    check_outage(settings, patient, postgresql.frozen, for_s=seconds)


def test_a_client_that_is_cut_off_in_a_transaction_holds_its_locks_no_longer_than_the_timeout(
    behind_proxy: str, server_url: str, make_settings: MakeSettings
) -> None:
    """Else the row of its key would stop every other front end for hours."""
    with (
        open_state(make_settings(database_url=behind_proxy, database_timeout_s=1)) as cut_off,
        open_state(make_settings(database_url=server_url)) as other,
    ):
        key_id = key_with(other, 1)
        with suppress(DatabaseFailed), cut_off.database.write() as connection:
            connection.execute(sa.text("UPDATE api_keys SET balance = balance"))
            other.credits.capture(other.credits.hold(key_id, "r"))  # waits for the row's lock
            assert other.credits.balance(key_id) == 0
            connection.execute(sa.text("SELECT 1"))
            pytest.fail("the transaction is still open")


def test_a_statement_is_ended_by_the_timeout(server_url: str, make_settings: MakeSettings) -> None:
    with open_state(make_settings(database_url=server_url, database_timeout_s=1)) as state:
        with (
            pytest.raises(DatabaseFailed, match="statement timeout"),
            state.database.read() as connection,
        ):
            connection.execute(sa.text("SELECT pg_sleep(30)"))
        with state.database.read() as connection:
            connection.execute(sa.text("SELECT pg_sleep(0.1)"))


@pytest.mark.parametrize(
    ("query", "client", "server"),
    [
        ("", ("7", "7000", "7", "5", "3"), ("7s", "7s")),
        (
            "&connect_timeout=2&tcp_user_timeout=9000&options=-c%20statement_timeout%3D90s",
            ("2", "9000", "7", "5", "3"),
            ("90s", "7s"),
        ),
    ],
)
def test_both_sides_notice_a_dead_connection_and_the_url_has_the_last_word(
    server_url: str,
    make_settings: MakeSettings,
    query: str,
    client: tuple[str, ...],
    server: tuple[str, ...],
) -> None:
    settings = make_settings(database_url=server_url + query, database_timeout_s=7)
    with open_state(settings) as state, state.database.read() as connection:
        parameters = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
        keepalives = [f"keepalives_{part}" for part in ("idle", "interval", "count")]
        names = ["connect_timeout", "tcp_user_timeout", *keepalives]
        assert tuple(parameters[name] for name in names) == client
        shown = ("statement_timeout", "idle_in_transaction_session_timeout")
        found = tuple(connection.execute(sa.text(f"SHOW {name}")).scalar() for name in shown)
        assert found == server
