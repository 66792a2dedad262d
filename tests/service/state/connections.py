"""Connections to PostgreSQL: which are opened, and how to use several at the same time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import sqlalchemy as sa

from upscaled.state import State


@contextmanager
def opened_connections() -> Iterator[list[object]]:
    """Record the connections that the block opens."""
    seen: list[object] = []

    def note(connection: object, _entry: object) -> None:
        seen.append(connection)

    sa.event.listen(sa.Engine, "connect", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "connect", note)


def read_at_once(state: State, threads: int) -> None:
    """Read in so many threads, which all have a connection at the same time."""
    together = threading.Barrier(threads, timeout=30)

    def read(_: int) -> None:
        with state.database.read() as connection:
            connection.execute(sa.text("SELECT 1"))
            together.wait()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))
