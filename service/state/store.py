"""Everything the service remembers, opened together."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service.config import Settings
from service.state.credits import Credits
from service.state.database import Database, open_database
from service.state.errors import DatabaseRefused
from service.state.holder import Holder
from service.state.keys import Keys
from service.state.migrate import migrate
from service.state.rate import Rate
from service.state.results import Results, SweptResults
from service.state.schema import API_KEYS

# Room for the largest result: a noisy 6000x6000 RGBA PNG is 78 to 89 MB.
MIN_FREE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: holds of dead processes given back, results, and the disk afterwards."""

    holds_released: int
    results: SweptResults
    free_bytes: int


@dataclass(frozen=True, slots=True)
class State:
    """Keys, credits, rates and results. Every call may block, and any thread may make it."""

    keys: Keys
    credits: Credits
    results: Results
    rate: Rate
    database: Database
    holder: Holder
    data_dir: Path

    def is_healthy(self) -> bool:
        """Whether the database can be written and the disk takes another result."""
        try:
            with self.database.write() as connection:
                connection.execute(sa.update(API_KEYS).where(sa.false()).values(balance=0))
            return shutil.disk_usage(self.data_dir).free >= MIN_FREE_BYTES
        except (SQLAlchemyError, OSError):
            return False

    def sweep(self) -> Swept:
        """Remove what expired or was left by dead processes. Every minute."""
        holds_released = self.credits.release_stale()
        results = self.results.sweep()
        return Swept(holds_released, results, shutil.disk_usage(self.data_dir).free)

    def close(self) -> None:
        """Give back what this process still has on hold, and let go of the database."""
        self.holder.close()
        with suppress(SQLAlchemyError):  # a database out of reach: the next start gives them back
            self.credits.release_stale()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_state(settings: Settings, clock: Callable[[], float] = time.time) -> State:
    """Open the state of this installation, made or migrated where need be.

    Folders are made for their owner only (0700). A data folder that exists keeps its mode: the
    files in it are private by themselves. What dead processes left is swept.

    clock: seconds since 1970.

    Raises:
        DatabaseRefused: the database cannot be used.
        OSError: the data folder cannot be made.
    """
    holders_dir = settings.data_dir / "holders"
    for folder in (settings.data_dir, settings.results_dir, holders_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = _open_migrated(settings)
    holder = Holder(holders_dir)
    state = State(
        keys=Keys(database, clock),
        credits=Credits(database, holder, clock, max_hold_age_s=longest_request_s(settings)),
        results=Results(settings.results_dir, settings.result_ttl_s, clock),
        rate=Rate(settings.rate_per_s, settings.rate_burst),
        database=database,
        holder=holder,
        data_dir=settings.data_dir,
    )
    try:
        state.sweep()
    except BaseException:
        state.close()
        raise
    return state


def _open_migrated(settings: Settings) -> Database:
    database = open_database(settings.database_url, settings.data_dir)
    try:
        with database.write() as connection:
            migrate(connection)
    except BaseException as error:
        database.close()
        if isinstance(error, SQLAlchemyError):
            raise DatabaseRefused(f"cannot prepare the database: {error}") from error
        raise
    return database


def longest_request_s(settings: Settings) -> float:
    """How long a credit can rightly be on hold: a full queue of images that are each tried as often
    as an image is: once in company and twice alone."""
    turns = settings.max_queue // settings.workers + 2
    return settings.source_timeout_s + 3 * settings.work_timeout_s * turns
