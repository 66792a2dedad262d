"""Record connections and statements of databases, and use several connections at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import sqlalchemy as sa

from upscaled.state import State

T = TypeVar("T")


@contextmanager
def recorded(event: str, pick: Callable[..., T]) -> Iterator[list[T]]:
    """Record what `pick` returns of the arguments of each such event of any engine in the block."""
    seen: list[T] = []

    def record(*arguments: object) -> None:
        seen.append(pick(*arguments))

    sa.event.listen(sa.Engine, event, record)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, event, record)


def opened_connections() -> AbstractContextManager[list[object]]:
    """Record the connections that the block opens."""
    return recorded("connect", lambda connection, _entry: connection)


def statements() -> AbstractContextManager[list[str]]:
    """Record the statements that the block executes, whichever database they are for."""
    return recorded("before_cursor_execute", lambda _connection, _cursor, text, *_: str(text))


def read_at_once(state: State, threads: int) -> None:
    """Read in so many threads, which all have a connection at the same time."""
    together = threading.Barrier(threads, timeout=30)

    def read(_: int) -> None:
        with state.database.read() as connection:
            connection.execute(sa.text("SELECT 1"))
            together.wait()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))
