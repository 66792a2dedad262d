"""Migrate a database to this version's schema, one process at a time."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import lift_timeout
from upscaled.state.errors import DatabaseRefused
from upscaled.state.migrations import REVISIONS_OF_COMMITS, SCHEMA_REVISION

_POSTGRESQL_LOCK: Final = 7_302_118_844_611_209
"""Key of PostgreSQL's advisory lock for migrating: any number that all our processes share."""


def migrate(connection: Connection) -> bool:
    """Create or upgrade the tables in a write transaction; return whether the database was empty.

    Processes that start at once wait for SQLite's write lock, or an advisory lock, and then find
    nothing to do. A database of a newer version, or of a commit between 0.1.0 and 0.2.0, raises
    `DatabaseRefused`.
    """
    lift_timeout(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))
    revision = read_revision(connection)
    if revision == SCHEMA_REVISION:
        return False
    if revision in REVISIONS_OF_COMMITS:
        raise DatabaseRefused(
            f"the database has schema revision {revision}, of a commit between 0.1.0 and 0.2.0: "
            "start version 0.2.0 with it once, then this one"
        )
    # Loaded only here: most starts, and every command, find the tables as they should be.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise DatabaseRefused(
            f"the database has schema revision {revision}, this version has only "
            f"{SCHEMA_REVISION}: it was written by a newer version of upscaled; run that one"
        )
    command.upgrade(config, SCHEMA_REVISION)
    return revision is None


def read_revision(connection: Connection) -> str | None:
    """Return the schema revision of the database, or None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def rewrite_revision(connection: Connection) -> None:
    """Write the revision unchanged, which fails on a full disk, a lock or a missing right."""
    connection.execute(sa.text("UPDATE alembic_version SET version_num = version_num"))
