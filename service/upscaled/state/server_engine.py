"""Connect to PostgreSQL: the pool of connections, and how long either side waits for the other."""

import select
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import URL, Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

if TYPE_CHECKING:
    import psycopg

CONNECTIONS: Final = 8
"""Most connections in the pool. They are opened when a front end starts and stay open: to open one
takes as long as ten statements, so a burst of requests waits less for one of these than for new
ones. One more, outside the pool, holds the lease (`lease`)."""

_TRUSTED_S: Final = 1.0
"""Time after its last use for which a connection is not tested if its socket is not readable."""

_RETURNED_AT: Final = "returned_at"
_KEEPALIVE_INTERVAL_S: Final = 5
_KEEPALIVE_COUNT: Final = 3


def make_server_engine(url: URL, timeout_s: int) -> Engine:
    """Make an engine on whose connections neither side waits for ever; options in the URL win."""
    engine = sa.create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=timeout_s,
        connect_args={
            name: value
            for name, value in {
                "connect_timeout": timeout_s,
                "tcp_user_timeout": timeout_s * 1000,
                "keepalives_idle": timeout_s,
                "keepalives_interval": _KEEPALIVE_INTERVAL_S,
                "keepalives_count": _KEEPALIVE_COUNT,
                # From an unencoded database (SQL_ASCII) the driver would give bytes for texts.
                "client_encoding": "UTF8",
            }.items()
            if name not in url.query
        },
    )
    sa.event.listen(engine, "checkin", _note_return)
    sa.event.listen(engine, "checkout", partial(_check_connection, engine.dialect, timeout_s))
    limits = {
        "statement_timeout": f"{timeout_s}s",
        # A client that was cut off in a transaction holds its locks until the server ends it.
        "idle_in_transaction_session_timeout": f"{timeout_s}s",
        # The server's side of the connection; on a Unix socket they mean nothing.
        "tcp_user_timeout": f"{timeout_s}s",
        "tcp_keepalives_idle": f"{timeout_s}s",
        "tcp_keepalives_interval": f"{_KEEPALIVE_INTERVAL_S}s",
        "tcp_keepalives_count": str(_KEEPALIVE_COUNT),
    }
    options = str(url.query.get("options", ""))
    settings = {name: value for name, value in limits.items() if name not in options}
    if settings:
        sa.event.listen(engine, "connect", partial(_limit_session, settings))
    return engine


def _limit_session(
    settings: Mapping[str, str], connection: DBAPIConnection, _record: ConnectionPoolEntry
) -> None:
    # Not as `options` of the connection, which poolers refuse.
    setters = ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in settings.items()
    )
    cursor = connection.cursor()
    cursor.execute(f"SELECT {setters}")
    cursor.close()
    connection.commit()


def _note_return(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info[_RETURNED_AT] = time.monotonic()


def _check_connection(
    dialect: Dialect,
    timeout_s: int,
    connection: "psycopg.Connection[Any]",
    entry: ConnectionPoolEntry,
    _proxy: PoolProxiedConnection,
) -> None:
    """Raise InvalidatePoolError for a connection that is lost: the pool then opens new ones.

    SQLAlchemy's own check queries the server each time, one more round trip for each statement.
    """
    returned_at = entry.info.get(_RETURNED_AT)
    if returned_at is None:  # it was opened just now
        return
    is_trusted = time.monotonic() - returned_at < _TRUSTED_S
    if is_trusted and not _is_readable(connection, 0):
        return
    try:
        is_alive = _ping(connection, timeout_s)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error
    if not is_alive:
        raise InvalidatePoolError(f"no answer within {timeout_s} s")


def _ping(connection: "psycopg.Connection[Any]", timeout_s: int) -> bool:
    """Send an empty query, and return whether the server answers in time.

    A server that is stopped keeps its connections open and acknowledges what it is sent, so neither
    its own limit on statements nor TCP's ends the wait for it.
    """
    from psycopg.pq import ExecStatus  # only those who have PostgreSQL have the package

    server, ends_at_s = connection.pgconn, time.monotonic() + timeout_s
    server.send_query(b"")
    server.flush()
    statuses: list[int] = []
    while True:
        while server.is_busy():
            if not _is_readable(connection, ends_at_s - time.monotonic()):
                return False
            server.consume_input()
        if (result := server.get_result()) is None:
            return statuses == [ExecStatus.EMPTY_QUERY]
        statuses.append(result.status)


def _is_readable(connection: "psycopg.Connection[Any]", within_s: float) -> bool:
    """Return whether the server sends something, or closes the connection, within that time."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(max(0, within_s * 1000)))  # below 0 it would wait without end
