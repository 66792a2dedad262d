"""Check the database: reachable, writable, of this version's schema, and its credits add up."""

import errno
import os
import time
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.doctor.folders import find_write_fault
from upscaled.doctor.hardware import describe_drift
from upscaled.state.database import Database, lift_timeout, open_database
from upscaled.state.database_url import find_sqlite_file
from upscaled.state.errors import DatabaseRefused, StateError
from upscaled.state.ledger import audit
from upscaled.state.migrate import read_revision, rewrite_revision
from upscaled.state.migrations import REVISIONS_OF_COMMITS, SCHEMA_REVISION

CHECK: Final = "database"
CONNECT_TIMEOUT_S: Final = 5

# Write-ahead logging needs shared memory, which machines that share a disk do not share.
_NETWORK_DISKS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})


def check_database(settings: Settings, mounts: Path = Path("/proc/self/mounts")) -> list[Finding]:
    """Check the database and, of a server, its clock; nothing is created or changed."""
    file = None
    try:
        file = find_sqlite_file(settings.database_url, settings.data_dir)
        if file is not None and not file.exists():
            return [ok(CHECK, f"SQLite: {file} will be made at the first start")]
        database = open_database(
            settings.database_url,
            settings.data_dir,
            password=settings.database_password.get_secret_value(),
            timeout_s=CONNECT_TIMEOUT_S,
            is_read_only=True,
        )
    except (DatabaseRefused, OSError) as error:
        return [_describe_refusal(str(error), file)]
    try:
        return _look_into(database, file, _disk_type(file, mounts) if file else "")
    except (StateError, SQLAlchemyError, OSError) as error:
        return [_describe_refusal(str(getattr(error, "orig", None) or error), file)]
    finally:
        database.close()


def _look_into(database: Database, file: Path | None, disk: str) -> list[Finding]:
    """Examine the database in a transaction that is rolled back, SQLite's without any write."""
    with database.rehearse() as connection:
        lift_timeout(connection)
        revision = read_revision(connection)
        if revision is not None and not file:
            rewrite_revision(connection)
        drifts = [] if file else [_measure_drift(connection)]
        ledger = _check_ledger(connection) if revision == SCHEMA_REVISION else []
    if file and (reason := _find_write_fault(file)):
        refusal = f"{file}: cannot be written by user {os.geteuid()}: {reason}"
        return [_describe_refusal(refusal, file)]
    name = f"SQLite: {file}" if file else "PostgreSQL"
    return [_describe_revision(name, revision, disk), *drifts, *ledger]


def _find_write_fault(file: Path) -> str:
    """Return why SQLite's file, or those that it needs beside it, cannot be written; or nothing."""
    if reason := find_write_fault(file.parent):  # a disk's fault, which the file's access hides
        return reason
    return "" if os.access(file, os.W_OK) else os.strerror(errno.EACCES)


def _check_ledger(connection: Connection) -> list[Finding]:
    """Return a failure for each API key whose credits do not add up."""
    return [
        failure(
            "credits",
            f"key {each.key_id}: balance {each.balance}, its entries add up to {each.entries_sum}; "
            f"{each.open_holds} open holds, {each.unsettled_holds} by its entries",
            "restore the last backup, or report this as a bug with `upscaled credits` of the key",
        )
        for each in audit(connection)
    ]


def _measure_drift(connection: Connection) -> Finding:
    before = time.time()
    theirs = float(
        connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar() or 0
    )
    return describe_drift("database clock", theirs - (before + time.time()) / 2)


def _describe_revision(name: str, revision: str | None, disk: str) -> Finding:
    if disk in _NETWORK_DISKS:
        return warning(
            CHECK,
            f"{name}: lies on a disk of the network ({disk}), where SQLite loses data",
            "name a local disk by UPSCALED_DATA_DIR, or a PostgreSQL by UPSCALED_DATABASE_URL",
        )
    if revision is None:
        return ok(CHECK, f"{name}: empty; the next start makes its tables")
    if revision > SCHEMA_REVISION:
        return failure(
            CHECK,
            f"{name}: its schema {revision} is newer than this version's {SCHEMA_REVISION}",
            "run the newer version of upscaled that wrote it",
        )
    if revision in REVISIONS_OF_COMMITS:
        return failure(
            CHECK,
            f"{name}: its schema {revision} is of a commit between 0.1.0 and 0.2.0",
            "back it up, and start version 0.2.0 with it once, then this one",
        )
    if revision < SCHEMA_REVISION:
        return warning(
            CHECK,
            f"{name}: its schema {revision} is older than {SCHEMA_REVISION}",
            "back it up: the next start migrates it",
        )
    return ok(CHECK, f"{name}: writable, schema {revision}")


def _describe_refusal(reason: str, file: Path | None) -> Finding:
    """Describe a database that cannot be used; `file`: SQLite's, None for another one."""
    advice = (
        "start the database, or correct UPSCALED_DATABASE_URL; empty, SQLite in the data folder "
        "is used"
    )
    if file is not None:
        advice = (
            f"free its disk, give {file} to the user that runs the service, or, where it is "
            "damaged, restore a backup of it with the service stopped"
        )
    return failure(CHECK, " ".join(reason.split()), advice)


def _disk_type(file: Path, mounts: Path) -> str:
    """Return the type of the file system that holds `file`; empty where none is known."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    resolved = file.resolve()
    held = [(point, kind) for _, point, kind, *_ in lines if resolved.is_relative_to(point)]
    return max(held, key=lambda each: len(each[0]), default=("", ""))[1]
