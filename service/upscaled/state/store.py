"""Keys, credits, rates and results together: check that they work, and sweep them."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from upscaled.errors import InternalError
from upscaled.logs import event
from upscaled.state.audit import AuditLog
from upscaled.state.auto_choice import SharedAutoChoice
from upscaled.state.clocks import SteadyClocks
from upscaled.state.credits import CreditLedger
from upscaled.state.database import Database
from upscaled.state.errors import StateError
from upscaled.state.holder import Holder
from upscaled.state.idempotency import IdempotencyKeys
from upscaled.state.job_sources import JobSources
from upscaled.state.jobs import Jobs
from upscaled.state.keys import Keys
from upscaled.state.left_leases import end_leases
from upscaled.state.migrate import rewrite_revision
from upscaled.state.rate import RateLimiter
from upscaled.state.results import Results, SweptResults
from upscaled.state.reuse import ReusableResults
from upscaled.state.schema import API_KEYS, STORED_RESULTS
from upscaled.state.under_way import UnderWay
from upscaled.state.usage import Usage
from upscaled.state.webhooks import Webhooks

MIN_FREE_BYTES: Final = 100 * 1024 * 1024
"""Space for the largest result: a noisy 6000x6000 RGBA PNG is 78 to 89 MB."""
_MIB: Final = 2**20
_FORGOTTEN_AT_ONCE: Final = 500
"""Rows in one statement: SQLite allows at least 999 parameters."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """The outcome of a sweep, and the free space of the results' or else the data folder's disk."""

    holds_released: int
    results: SweptResults
    free_bytes: int


@dataclass(frozen=True, slots=True)
class State:
    """Keys, credits, rates, results, usage and audit log of one installation; every call may block.

    is_new: the database was empty until this start.
    """

    keys: Keys
    credits: CreditLedger
    idempotency: IdempotencyKeys
    reusable: ReusableResults
    jobs: Jobs
    webhooks: Webhooks
    usage: Usage
    audit: AuditLog
    job_sources: JobSources
    results: Results
    job_results: Results
    rate: RateLimiter
    under_way: UnderWay
    auto_choice: SharedAutoChoice
    database: Database
    steady_clocks: SteadyClocks
    holder: Holder
    data_dir: Path
    is_new: bool

    @property
    def result_stores(self) -> tuple[Results, Results]:
        """Return where a result's name may be known: of requests, and of jobs."""
        return self.results, self.job_results

    def find_apart(self) -> list[str]:
        """Return the living front ends whose folder of results and jobs' images is another one."""
        return [] if self.results.folder is None else self.holder.find_elsewhere()

    def find_trouble(self) -> str:
        """Return why a request would fail now, for an operator; empty if it would not.

        Writes to the database, and stores, reads and deletes a result.
        """
        try:
            with self.database.write() as connection:
                connection.execute(sa.update(API_KEYS).where(sa.false()).values(balance=0))
                rewrite_revision(connection)
            self.results.try_out()
            return self._find_lack_of_space()
        except InternalError as error:
            return f"{self.results.location}: {error.detail}"
        except OSError as error:
            return f"{error.filename or self.data_dir}: {error.strerror}"
        except (StateError, SQLAlchemyError) as error:
            return " ".join(str(error).split())

    def _find_lack_of_space(self) -> str:
        for folder in filter(None, (self.results.folder, self.database.folder)):
            free_bytes = shutil.disk_usage(folder).free
            if free_bytes < MIN_FREE_BYTES:
                return f"{folder}: only {free_bytes // _MIB} of {MIN_FREE_BYTES // _MIB} MiB free"
        return ""

    def sweep(self) -> Swept:
        """Remove what expired or was left by dead processes; called every minute.

        Files first: the database may need their space. The first failure is raised at the end.
        """
        failures: list[Exception] = []
        results = _attempt(self.results.sweep, failures) or SweptResults()
        _attempt(self.job_results.sweep, failures)
        is_settled = _attempt(self.steady_clocks.are_settled, failures)
        if is_settled is not None:
            _attempt(self.steady_clocks.record, failures)
        if is_settled and self.holder.lead():
            _attempt(self._forget_expired, failures)
            _attempt(self.idempotency.remove_old, failures)
            _attempt(lambda: self.reusable.remove_expired(self.results.ttl_s), failures)
            _attempt(self._remove_ended_jobs, failures)
            _attempt(self.under_way.sweep, failures)
            _attempt(self.usage.remove_old, failures)
            _attempt(self.usage.roll_up, failures)
            _attempt(self.audit.remove_old, failures)
        holds_released = _attempt(self.settle_left, failures) or 0
        if failures:
            raise failures[0]
        disk = self.results.folder or self.data_dir
        return Swept(holds_released, results, shutil.disk_usage(disk).free)

    def settle_left(self) -> int:
        """End the leases of ended processes, and release credits; return how many credits."""
        with self.holder.survey() as holders:
            end_leases(self.database, holders.ended)
            return self.credits.release_stale(holders)

    def _remove_ended_jobs(self) -> None:
        """Remove jobs whose results expired, and the sources that no job needs."""
        self.jobs.remove_ended(lifetime_s=self.job_results.ttl_s)
        self.job_sources.sweep(self.jobs.sources_in_use())

    def _forget_expired(self) -> None:
        """Remove the records of expired results."""
        stored = STORED_RESULTS.c
        clock, ttl_s = self.results.clock, self.results.ttl_s
        query = sa.select(stored.request_id, stored.stored_at_s).where(
            stored.stored_at_s <= clock.now_s() - ttl_s
        )
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        expired = [row.request_id for row in rows if clock.age_s(row.stored_at_s) >= ttl_s]
        for first in range(0, len(expired), _FORGOTTEN_AT_ONCE):
            ids = expired[first : first + _FORGOTTEN_AT_ONCE]
            with self.database.write() as connection:
                connection.execute(sa.delete(STORED_RESULTS).where(stored.request_id.in_(ids)))

    def close(self) -> None:
        """Give back what this process still has on hold, and close the database."""
        try:
            self.holder.close()
            self.credits.retry_pending()
            self.settle_left()
        except (StateError, SQLAlchemyError, OSError) as error:
            # The database is out of reach: the next sweep, or start, gives back what is on hold.
            fields = event("release_failed", pending=len(self.credits.pending))
            _log.warning("credits on hold are left to the next sweep: %s", error, extra=fields)
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _attempt(step: Callable[[], T], failures: list[Exception]) -> T | None:
    try:
        return step()
    except Exception as error:  # noqa: BLE001  (raised by the caller)
        failures.append(error)
        return None
