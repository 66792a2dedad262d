"""The job queue: one worker at a time by lease, one charge by transaction, on both databases."""

import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, SetClock, key_with
from upscaled.config import Settings
from upscaled.errors import InsufficientApiCredits, MalformedImage, RateLimitExceeded
from upscaled.image.output import OutputChoice
from upscaled.state import Clocks, PaidResult, State, open_state
from upscaled.state.job_rows import (
    ClaimedJob,
    JobOrder,
    StoredJob,
    count_unfinished,
    select_claimable,
)
from upscaled.state.job_steps import LEASE_S, MAX_ATTEMPTS
from upscaled.state.schema import CREDIT_ENTRIES, JOBS, OPEN_HOLDS

ORDER = JobOrder("source-1", None, 4, "", OutputChoice("webp", 80))
RESULT = PaidResult("0.jpg", "image/jpeg")
WORKING = Path(__file__).with_name("working.py")


def submit(state: State, key_id: int, order: JobOrder = ORDER) -> StoredJob:
    return state.jobs.submit(key_id, order, is_metered=True, max_unfinished=1000).job


def claim(state: State) -> ClaimedJob:
    claimed = state.jobs.claim()
    assert claimed is not None
    return claimed


def end_leases_of_jobs(state: State) -> None:
    with state.database.write() as connection:
        connection.execute(
            sa.update(JOBS).where(JOBS.c.state == "running").values(lease_until_s=0.0)
        )


def set_clock_back(state: State, seconds: float) -> None:
    """Move leases into the future: to them the database's clock was set back."""
    later_s = JOBS.c.lease_until_s + seconds
    with state.database.write() as connection:
        connection.execute(sa.update(JOBS).values(lease_until_s=later_s))


def entry_kinds(state: State) -> Counter[str]:
    with state.database.read() as connection:
        return Counter(connection.execute(sa.select(CREDIT_ENTRIES.c.kind)).scalars())


def test_a_job_that_succeeds_costs_one_credit(store: State) -> None:
    key_id = key_with(store, 3)
    job = submit(store, key_id)
    assert (job.state, job.order, job.ended_at_s, job.is_ended) == ("queued", ORDER, None, False)
    assert store.credits.balance(key_id) == 2
    claimed = claim(store)
    assert (claimed.job.id, claimed.job.state, claimed.job.attempts) == (job.id, "running", 1)
    assert store.jobs.finish(claimed, RESULT)
    ended = store.jobs.find(key_id, job.id)
    assert ended is not None
    assert (ended.state, ended.result, ended.is_ended) == ("succeeded", RESULT, True)
    assert ended.ended_at_s is not None
    assert ended.ended_at_s >= ended.created_at_s
    assert store.credits.balance(key_id) == 2
    assert entry_kinds(store) == {"grant": 1, "hold": 1, "capture": 1}
    assert store.credits.audit() == ()


def test_a_failed_job_is_not_charged_and_has_its_error(store: State) -> None:
    key_id = key_with(store, 1)
    job = submit(store, key_id)
    assert store.jobs.fail(claim(store), MalformedImage(detail="secret"))
    ended = store.jobs.find(key_id, job.id)
    assert ended is not None
    assert (ended.state, ended.error_code) == ("failed", "malformed_image")
    assert ended.error_text == "The image is malformed"
    assert store.credits.balance(key_id) == 1
    assert store.credits.audit() == ()


def test_without_credits_there_is_no_job(store: State) -> None:
    key_id = key_with(store, 0)
    with pytest.raises(InsufficientApiCredits):
        submit(store, key_id)
    assert store.jobs.claim() is None
    assert store.jobs.list_page(key_id, limit=10).jobs == ()


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_without_metering_a_job_touches_no_credit(store: State, end: str) -> None:
    key_id = key_with(store, 0)
    job = store.jobs.submit(key_id, ORDER, is_metered=False, max_unfinished=1).job
    if end == "finish":
        assert store.jobs.finish(claim(store), RESULT)
    elif end == "fail":
        assert store.jobs.fail(claim(store), MalformedImage())
    else:
        assert store.jobs.cancel(key_id, job.id)
    assert entry_kinds(store) == {}


def test_the_key_with_the_fewest_running_jobs_is_served_first(store: State) -> None:
    busy, other = key_with(store, 5), key_with(store, 2, "other")
    first = [submit(store, busy).id for _ in range(3)]
    later = submit(store, other).id
    assert [claim(store).job.id for _ in range(4)] == [first[0], later, first[1], first[2]]


def test_keys_take_turns_where_one_job_runs_at_a_time(store: State) -> None:
    keys = [key_with(store, 3, name) for name in ("a", "b", "c")]
    for key_id in keys:
        for _ in range(2):
            submit(store, key_id)
    served, last = [], 0
    for _ in range(6):
        claimed = store.jobs.claim(last)
        assert claimed is not None
        last = claimed.job.key_id
        served.append(last)
        store.jobs.finish(claimed, RESULT)
    assert served == keys * 2


def test_a_job_that_is_put_back_for_a_while_is_served_after_others(store: State) -> None:
    key_id = key_with(store, 2)
    first, second = submit(store, key_id), submit(store, key_id)
    assert store.jobs.put_back(claim(store), delay_s=60)
    assert claim(store).job.id == second.id
    assert store.jobs.claim() is None
    with store.database.write() as connection:
        due = sa.update(JOBS).where(JOBS.c.id == first.id).values(lease_until_s=0.0)
        connection.execute(due)
    assert claim(store).job.id == first.id


@pytest.mark.parametrize("is_metered", [True, False])
def test_waiting_jobs_of_a_revoked_key_are_cancelled_and_not_charged(
    store: State, is_metered: bool
) -> None:
    key_id = key_with(store, 1)
    job = store.jobs.submit(key_id, ORDER, is_metered=is_metered, max_unfinished=1).job
    store.keys.revoke("web")
    (ended,) = store.jobs.end_unwanted()
    assert (ended.id, ended.key_name, ended.state) == (job.id, "web", "cancelled")
    assert ended == store.jobs.find(key_id, job.id)
    assert store.jobs.end_unwanted() == ()
    assert store.jobs.claim() is None
    assert store.credits.balance(key_id) == 1


def test_jobs_of_several_keys_are_ended_in_the_order_of_their_keys(store: State) -> None:
    """A transfer of credits, or another front end, could wait for one key and hold the other."""
    keys = [key_with(store, 9, name) for name in ("a", "b", "c")]
    for key_id in [*reversed(keys), *keys] * 2:
        submit(store, key_id)
    for _ in range(12):
        claim(store)
    with store.database.write() as connection:
        connection.execute(sa.update(JOBS).values(attempts=MAX_ATTEMPTS, lease_until_s=0.0))
    ended = [job.key_id for job in store.jobs.end_unwanted()]
    assert ended == sorted(ended)
    assert len(ended) == 12


@pytest.mark.parametrize("is_metered", [True, False])
def test_the_limit_of_jobs_is_checked_before_a_source_is_stored(
    store: State, is_metered: bool
) -> None:
    key_id = key_with(store, 1)
    check = partial(store.jobs.check_job_limit, key_id, is_metered=is_metered)
    check(max_unfinished=1)
    submit(store, key_id)
    with pytest.raises(RateLimitExceeded):
        check(max_unfinished=1)
    if is_metered:
        with pytest.raises(InsufficientApiCredits):
            check(max_unfinished=2)
    else:
        check(max_unfinished=2)


def test_the_search_for_a_job_uses_the_index_of_unfinished_ones(store: State) -> None:
    if store.database.is_server:
        pytest.skip("PostgreSQL's planner goes by statistics")
    with store.database.read() as connection:
        query = select_claimable(connection, 0, has_settled=True).compile(
            connection, compile_kwargs={"literal_binds": False}
        )
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {query}",
            tuple(query.params[name] for name in query.positiontup or ()),
        ).all()
    assert [row for row in plan if "SCAN jobs" in row.detail and "INDEX" not in row.detail] == []
    assert any("ix_jobs_unfinished" in row.detail for row in plan)


def test_jobs_are_claimed_oldest_first_and_each_once(store: State) -> None:
    key_id = key_with(store, 3)
    jobs = [submit(store, key_id).id for _ in range(3)]
    assert [claim(store).job.id for _ in jobs] == jobs
    assert store.jobs.claim() is None


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_cancelled_job_costs_nothing_and_its_worker_learns_of_it(
    store: State, is_claimed: bool
) -> None:
    key_id = key_with(store, 1)
    job = submit(store, key_id)
    claimed = claim(store) if is_claimed else None
    change = store.jobs.cancel(key_id, job.id)
    assert change is not None
    assert (change.job.state, change.is_changed) == ("cancelled", True)
    assert store.credits.balance(key_id) == 1
    if claimed:
        assert not store.jobs.renew(claimed, 1, 2)
        assert not store.jobs.finish(claimed, RESULT)
        assert not store.jobs.fail(claimed, MalformedImage())
        assert not store.jobs.put_back(claimed)
    assert store.jobs.claim() is None
    assert store.credits.audit() == ()


def test_cancelling_a_job_that_has_ended_changes_nothing(store: State) -> None:
    key_id = key_with(store, 1)
    job = submit(store, key_id)
    store.jobs.finish(claim(store), RESULT)
    change = store.jobs.cancel(key_id, job.id)
    assert change is not None
    assert (change.job.state, change.is_changed) == ("succeeded", False)
    assert entry_kinds(store)["release"] == 0


def test_another_keys_job_is_not_there(store: State) -> None:
    key_id, other = key_with(store, 1), key_with(store, 1, "other")
    job = submit(store, key_id)
    assert store.jobs.find(other, job.id) is None
    assert store.jobs.cancel(other, job.id) is None
    assert store.jobs.list_page(other, limit=1).jobs == ()
    assert store.jobs.find(key_id, "no such job") is None
    assert store.jobs.find(key_id, job.id) == job


def test_a_lease_that_ran_out_lets_another_process_finish_the_job(store: State) -> None:
    key_id = key_with(store, 2)
    submit(store, key_id)
    first = claim(store)
    end_leases_of_jobs(store)
    second = claim(store)
    assert (second.job.id, second.job.attempts) == (first.job.id, 2)
    assert not store.jobs.renew(first, 1, 2)
    assert not store.jobs.finish(first, PaidResult("lost.jpg", "image/jpeg"))
    assert store.jobs.finish(second, RESULT)
    assert store.jobs.finish(second, RESULT)  # as a process that lost the answer would
    assert not store.jobs.finish(second, PaidResult("other.jpg", "image/jpeg"))
    job = store.jobs.find(key_id, first.job.id)
    assert job is not None
    assert job.result == RESULT
    assert entry_kinds(store)["capture"] == 1


def test_a_lease_of_before_the_clock_was_set_back_is_over(store: State) -> None:
    key_id = key_with(store, 2)
    submit(store, key_id)
    first = claim(store)
    assert store.jobs.claim() is None
    set_clock_back(store, 3600)
    assert claim(store).job.id == first.job.id


@pytest.mark.parametrize("step_s", [40.0, 3600.0, -40.0, -3600.0])
@pytest.mark.parametrize("attempts", [1, MAX_ATTEMPTS])
def test_a_job_under_way_stays_with_its_process_when_the_clock_is_set(
    database_url: str,
    make_settings: MakeSettings,
    set_clock: SetClock,
    step_s: float,
    attempts: int,
) -> None:
    clocks = Clocks(running=set_clock.running)
    with open_state(make_settings(database_url=database_url), clocks) as state:
        submit(state, key_with(state, 2))
        first = claim(state)
        with state.database.write() as connection:
            connection.execute(sa.update(JOBS).values(attempts=attempts))
        assert state.jobs.end_unwanted() == ()
        set_clock.ahead_s += step_s
        set_clock_back(state, -step_s)
        assert state.jobs.end_unwanted() == ()
        assert state.jobs.claim() is None
        assert state.jobs.renew(first, 1, 2)
        set_clock.now_s += LEASE_S
        assert state.jobs.claim() is None
        end_leases_of_jobs(state)  # now its process is dead
        ended = state.jobs.end_unwanted()
        again = state.jobs.claim()
        assert [len(ended), again is not None] == ([0, True] if attempts == 1 else [1, False])


def test_a_job_that_was_put_back_for_a_while_waits_no_hours_after_the_clock_was_set_back(
    store: State,
) -> None:
    key_id = key_with(store, 2)
    submit(store, key_id)
    first = claim(store)
    store.jobs.put_back(first, 60)
    assert store.jobs.claim() is None
    set_clock_back(store, 3600)
    assert claim(store).job.id == first.job.id


def test_a_renewed_lease_keeps_the_job_and_shows_its_progress(store: State) -> None:
    key_id = key_with(store, 2)
    submit(store, key_id)
    claimed = claim(store)
    end_leases_of_jobs(store)
    assert store.jobs.renew(claimed, 3, 8)
    assert store.jobs.claim() is None
    job = store.jobs.find(key_id, claimed.job.id)
    assert job is not None
    assert (job.tiles_done, job.tiles_total) == (3, 8)


def test_a_job_whose_lease_ended_too_often_fails_and_is_not_charged(store: State) -> None:
    key_id = key_with(store, 1)
    job = submit(store, key_id)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim(store).job.attempts == attempt
        end_leases_of_jobs(store)
    assert store.jobs.claim() is None
    (ended,) = store.jobs.end_unwanted()
    assert ended == store.jobs.find(key_id, job.id)
    assert (ended.state, ended.error_code) == ("failed", "internal_error")
    assert store.credits.balance(key_id) == 1
    assert store.credits.audit() == ()


def test_putting_a_job_back_counts_no_attempt(store: State) -> None:
    submit(store, key_with(store, 1))
    for _ in range(MAX_ATTEMPTS + 1):
        claimed = claim(store)
        assert claimed.job.attempts == 1
        assert store.jobs.put_back(claimed)
    assert not store.jobs.put_back(claimed)


def test_the_hold_of_a_job_is_kept_over_restarts_and_at_any_age(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    with open_state(settings) as first:
        key_id = key_with(first, 2)
        submit(first, key_id)
        with first.database.write() as connection:
            connection.execute(sa.update(OPEN_HOLDS).values(held_at_s=0))
    with open_state(settings) as second:
        assert second.sweep().holds_released == 0
        assert second.credits.balance(key_id) == 1
        assert second.jobs.finish(claim(second), RESULT)


def test_jobs_are_listed_newest_first_by_page_and_by_state(store: State) -> None:
    key_id = key_with(store, 5)
    jobs = [submit(store, key_id).id for _ in range(5)]
    store.jobs.cancel(key_id, jobs[1])
    pages = [store.jobs.list_page(key_id, limit=2)]
    while pages[-1].next_position:
        pages.append(store.jobs.list_page(key_id, limit=2, after=pages[-1].next_position))
    assert [[job.id for job in page.jobs] for page in pages] == [
        [jobs[4], jobs[3]],
        [jobs[2], jobs[1]],
        [jobs[0]],
    ]
    cancelled = store.jobs.list_page(key_id, state="cancelled", limit=5)
    assert [job.id for job in cancelled.jobs] == [jobs[1]]
    assert store.jobs.list_page(key_id, limit=5).next_position is None
    with store.database.read() as connection:
        assert count_unfinished(connection, key_id) == 4


def test_ended_jobs_are_removed_after_their_lifetime_and_others_never(store: State) -> None:
    key_id = key_with(store, 3)
    waiting, ended, old = (submit(store, key_id).id for _ in range(3))
    store.jobs.cancel(key_id, ended)
    store.jobs.cancel(key_id, old)
    with store.database.write() as connection:
        connection.execute(
            sa.update(JOBS).where(JOBS.c.id == old).values(ended_at_s=JOBS.c.ended_at_s - 101)
        )
    assert store.jobs.remove_ended(lifetime_s=100) == 1
    assert [job.id for job in store.jobs.list_page(key_id, limit=5).jobs] == [ended, waiting]
    assert store.jobs.sources_in_use() == {"source-1"}


def check_ledger_under_kills(settings: Settings, *, jobs: int, workers: int, kills: int) -> None:
    with open_state(settings) as state:
        key_id = key_with(state, jobs + 50)
        state.webhooks.configure("web", "http://127.0.0.1/hook")
    arguments = (settings.database_url, settings.data_dir, key_id, jobs, workers, kills)
    command = [sys.executable, str(WORKING), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with open_state(settings) as state:
        assert state.sweep().holds_released == 0  # all were settled with their jobs
        ended = Counter(job.state for job in state.jobs.list_page(key_id, limit=10_000).jobs)
        kinds = entry_kinds(state)
        assert ended.total() == jobs == kinds["hold"]
        assert set(ended) <= {"succeeded", "cancelled"}
        assert kinds["capture"] == ended["succeeded"]
        assert kinds["release"] == ended["cancelled"]
        assert len({webhook.job_id for webhook in state.webhooks.list("waiting")}) == jobs
        assert state.credits.balance(key_id) == 50 + ended["cancelled"]
        assert state.credits.audit() == ()


@pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)],
    indirect=True,
)
def test_the_ledger_is_exact_after_front_end_and_workers_are_killed(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    check_ledger_under_kills(settings, jobs=40, workers=3, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_ledger_is_exact_after_400_jobs_that_were_sent_twice_and_25_kills(
    database_url: str, make_settings: MakeSettings
) -> None:
    settings = make_settings(database_url=database_url)
    check_ledger_under_kills(settings, jobs=400, workers=4, kills=25)
