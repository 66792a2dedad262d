"""SQL compiled once for all engines of a process: a service in production has one for its life.

Each test opens a database, and so an engine, of its own. Compiling its few dozen statements anew
took a sixth of the processor time of the tests that write to one.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa


class SharedStatements(dict[Any, Any]):
    """Cache of SQLAlchemy whose keys name the database and its driver, in place of one engine's."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_name_dialect(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(_name_dialect(key), compiled)


def _name_dialect(key: Any) -> tuple[Any, ...]:
    dialect, *statement = key
    return (dialect.name, dialect.driver, *statement)


@pytest.fixture(scope="session", autouse=True)
def shared_statements() -> Iterator[None]:
    """Give every connection of every engine the same cache of compiled statements."""
    statements = SharedStatements()

    def share(connection: sa.Connection) -> None:
        connection.execution_options(compiled_cache=statements)

    sa.event.listen(sa.Engine, "engine_connect", share)
    yield
    sa.event.remove(sa.Engine, "engine_connect", share)
