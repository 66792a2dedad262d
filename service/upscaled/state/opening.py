"""Open the state of an installation: its database, and all that is kept in it and beside it."""

import logging
import math

from sqlalchemy.exc import SQLAlchemyError

from upscaled.config import Settings
from upscaled.logs import event
from upscaled.state.audit import AuditLog
from upscaled.state.auto_choice import SharedAutoChoice
from upscaled.state.clocks import Clocks, DatabaseClock, StampClock, SteadyClocks, has_dated_rows
from upscaled.state.credits import CreditLedger
from upscaled.state.database import Database, open_database
from upscaled.state.errors import DatabaseRefused, StateError
from upscaled.state.folder_results import FolderResults
from upscaled.state.holder import FileHolder, Holder
from upscaled.state.idempotency import IdempotencyKeys
from upscaled.state.job_sources import FolderSources, JobSources
from upscaled.state.jobs import Jobs
from upscaled.state.keys import Keys
from upscaled.state.lease import LeasedHolder
from upscaled.state.migrate import migrate
from upscaled.state.rate import Rate, RateLimiter, SharedRate
from upscaled.state.results import Results
from upscaled.state.reuse import ReusableResults
from upscaled.state.store import State
from upscaled.state.under_way import UnderWay
from upscaled.state.usage import Usage
from upscaled.state.usage_days import DAY_S
from upscaled.state.webhooks import Webhooks

_log = logging.getLogger(__name__)


def open_state(settings: Settings, clocks: Clocks = Clocks()) -> State:  # noqa: B008  (frozen)
    """Open the state of this installation, and create or migrate it where needed.

    New folders are for their owner only (0700), whatever the umask; a data folder that exists keeps
    its mode, for the files in it are private by themselves. What ended processes left is settled.
    `DatabaseRefused`, `DatabaseFailed` or OSError say what cannot be used.
    """
    for folder in (settings.data_dir, settings.results_dir, settings.job_results_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database, is_new = _open_migrated(settings)
    try:
        state = _put_together(settings, clocks, database, is_new=is_new)
        if settings.auth == "none":
            state.keys.make_local()
        _settle_left(state)
    except BaseException:
        database.close()
        raise
    return state


def _put_together(settings: Settings, clocks: Clocks, database: Database, *, is_new: bool) -> State:
    has_rows = has_dated_rows(database)
    clock = DatabaseClock(database, clocks, is_new=not has_rows)
    holder = _make_holder(settings, clocks, database, clock)
    audit = AuditLog(database, clocks, keep_s=settings.audit_retention_days * DAY_S or math.inf)
    longest_s = longest_request_s(settings)
    return State(
        keys=Keys(database, clocks, audit),
        credits=CreditLedger(database, holder, clocks, audit, max_hold_age_s=longest_s),
        idempotency=IdempotencyKeys(database, clocks, clock, holder),
        reusable=ReusableResults(database),
        jobs=Jobs(database, clocks, clock, holder, settings.job_result_lifetime_s),
        webhooks=Webhooks(database, clock, holder, audit),
        usage=Usage(database, clocks, keep_s=settings.usage_retention_days * DAY_S),
        audit=audit,
        job_sources=_open_job_sources(settings),
        results=open_results(settings, StampClock(clocks)),
        job_results=_open_job_results(settings, StampClock(clocks)),
        rate=_make_rate(settings, database),
        under_way=UnderWay(database, longest_s),
        auto_choice=SharedAutoChoice(database, holder),
        database=database,
        steady_clocks=SteadyClocks(database, clocks, is_new=not has_rows),
        holder=holder,
        data_dir=settings.data_dir,
        is_new=is_new,
    )


def _make_holder(
    settings: Settings, clocks: Clocks, database: Database, clock: DatabaseClock
) -> Holder:
    process = FileHolder(settings.data_dir / "holders")
    return LeasedHolder(database, clocks, clock, process) if database.is_server else process


def _make_rate(settings: Settings, database: Database) -> RateLimiter:
    if database.is_server:
        return SharedRate(database, settings.rate_per_s, settings.rate_burst)
    return Rate(settings.rate_per_s, settings.rate_burst)


def _settle_left(state: State) -> None:
    """Settle what ended processes left; where that fails, a sweep will, and leases run out.

    Not the results: by a clock that was just set, those of a running server would be too old.
    """
    try:
        state.settle_left()
    except (StateError, OSError) as error:
        fields = event("left_leases_kept")
        _log.warning("what ended processes left is not settled yet: %s", str(error), extra=fields)


def open_results(settings: Settings, clock: StampClock) -> Results:
    in_folder = FolderResults(settings.results_dir, settings.result_ttl_s, clock)
    return _open_bucket_results(settings, "", in_folder) if settings.results_url else in_folder


def _open_job_results(settings: Settings, clock: StampClock) -> Results:
    """Return the store of the results of jobs, which are kept longer than the others."""
    in_folder = FolderResults(settings.job_results_dir, settings.job_result_lifetime_s, clock)
    return _open_bucket_results(settings, "/jobs", in_folder) if settings.results_url else in_folder


def _open_bucket_results(settings: Settings, subfolder: str, earlier: FolderResults) -> Results:
    # obstore is no small library, and the extra `s3` brings it.
    from upscaled.state.bucket_results import BucketResults

    url = settings.results_url.rstrip("/") + subfolder
    return BucketResults(url, settings.s3_endpoint, earlier)


def _open_job_sources(settings: Settings) -> JobSources:
    in_folder = FolderSources(settings.data_dir / "job-sources")
    if not settings.results_url:
        return in_folder
    from upscaled.state.bucket_sources import BucketSources

    url = settings.results_url.rstrip("/") + "/job-sources"
    return BucketSources(url, settings.s3_endpoint, in_folder, max_bytes=settings.max_file_bytes)


def _open_migrated(settings: Settings) -> tuple[Database, bool]:
    """Return the migrated database, and whether it was empty until now."""
    database = open_database(
        settings.database_url,
        settings.data_dir,
        password=settings.database_password.get_secret_value(),
        timeout_s=settings.database_timeout_s,
    )
    try:
        with database.write() as connection:
            is_new = migrate(connection)
    except BaseException as error:
        database.close()
        if isinstance(error, SQLAlchemyError):
            raise DatabaseRefused(f"cannot prepare the database: {error}") from error
        raise
    return database, is_new


def longest_request_s(settings: Settings) -> float:
    """Return the longest time that a request may hold its credit.

    One worker alone may compute a full queue, and try each image four times: on two devices beside
    others, and twice by itself.
    """
    images = settings.max_queue + 2
    return settings.source_timeout_s + 4 * settings.work_timeout_s * images
