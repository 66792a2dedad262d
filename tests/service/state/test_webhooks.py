"""Webhooks on both databases: queued with a job's end, claimed by one, kept until delivered."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, SetClock
from upscaled.errors import MalformedImage
from upscaled.state import Clocks, PaidResult, State, open_state
from upscaled.state.errors import UnknownName
from upscaled.state.idempotency import RequestKey
from upscaled.state.job_rows import JobOrder, StoredJob
from upscaled.state.schema import JOBS, WEBHOOK_DELIVERIES
from upscaled.state.usage import MadeImage
from upscaled.state.webhook_rows import ClaimedDelivery, Delivery, KeyWebhook, select_due
from upscaled.state.webhooks import LEASE_S, MAX_ATTEMPTS, WAITS_S

RESULT = PaidResult("0.jpg", "image/jpeg")
URL = "http://10.0.0.1/hook"
DUE = WEBHOOK_DELIVERIES.c.due_at_s


def key_with_webhook(state: State, name: str = "web", url: str | None = URL) -> int:
    key = state.keys.verify(state.keys.create(name, credits=20))
    assert key is not None
    state.webhooks.configure(name, url)
    return key.id


def submit(state: State, key_id: int, webhook_url: str | None = None) -> StoredJob:
    order = JobOrder("source", None, 4, "", base_url="http://here", webhook_url=webhook_url)
    return state.jobs.submit(key_id, order, is_metered=True, max_unfinished=1000).job


def end(state: State, key_id: int, webhook_url: str | None = None) -> str:
    """Submit a job, end it, and return its id."""
    job = submit(state, key_id, webhook_url)
    assert state.jobs.cancel(key_id, job.id)
    return job.id


def claim(state: State) -> ClaimedDelivery:
    claimed = state.webhooks.claim()
    assert claimed is not None
    return claimed


def wait(state: State, seconds: float) -> None:
    with state.database.write() as connection:
        connection.execute(sa.update(WEBHOOK_DELIVERIES).values(due_at_s=DUE - seconds))


def set_clock_back(state: State, seconds: float) -> None:
    """Move what is stored into the future: to it the database's clock was set back."""
    with state.database.write() as connection:
        connection.execute(sa.update(WEBHOOK_DELIVERIES).values(due_at_s=DUE + seconds))


def only(state: State) -> Delivery:
    (delivery,) = state.webhooks.list()
    return delivery


@pytest.mark.parametrize("how", ["succeeded", "failed", "cancelled", "revoked"])
def test_the_end_of_a_job_queues_its_webhook_once(store: State, how: str) -> None:
    key_id = key_with_webhook(store)
    job = submit(store, key_id)
    assert store.webhooks.claim() is None  # not before its end
    if how == "cancelled":
        store.jobs.cancel(key_id, job.id)
        store.jobs.cancel(key_id, job.id)
    elif how == "revoked":
        store.keys.revoke("web")
        store.jobs.end_unwanted()
    else:
        running = store.jobs.claim()
        assert running is not None
        for _ in range(2):  # as a process that lost the answer would
            if how == "succeeded":
                store.jobs.finish(running, RESULT, image=MadeImage("m", "jpeg", 1, 16, 0.1))
            else:
                store.jobs.fail(running, MalformedImage())
    claimed = claim(store)
    assert claimed.job.id == job.id
    assert claimed.job.state == ("cancelled" if how == "revoked" else how)
    assert (claimed.url, claimed.is_trusted, claimed.attempts) == (URL, True, 1)
    assert store.webhooks.claim() is None


def test_the_address_of_a_job_overrides_that_of_its_key_and_is_not_trusted(store: State) -> None:
    end(store, key_with_webhook(store), "http://job.example/hook")
    claimed = claim(store)
    assert (claimed.url, claimed.is_trusted) == ("http://job.example/hook", False)
    assert claimed.job.order.base_url == "http://here"


@pytest.mark.parametrize("has_secret", [False, True])
def test_without_an_address_nothing_is_queued(store: State, has_secret: bool) -> None:
    key_id = key_with_webhook(store, url=None)
    if not has_secret:
        key = store.keys.verify(store.keys.create("other", credits=1))
        assert key is not None
        key_id = key.id
    assert store.webhooks.has_secret(key_id) == has_secret
    end(store, key_id)
    assert store.webhooks.list() == ()


def test_a_keys_secret_is_kept_until_a_new_one_is_requested(store: State) -> None:
    store.keys.create("web")
    assert store.webhooks.show("web") is None
    first = store.webhooks.configure("web", URL)
    assert first == store.webhooks.show("web") == KeyWebhook(first.secret, URL)
    assert store.webhooks.configure("web", None) == KeyWebhook(first.secret)
    assert store.webhooks.configure("web", URL, renews_secret=True).secret != first.secret
    assert first.secret.startswith("whsec_")
    with pytest.raises(UnknownName):
        store.webhooks.configure("unknown", URL)


def test_a_delivery_is_claimed_by_one_process_until_its_lease_is_over(store: State) -> None:
    end(store, key_with_webhook(store))
    with ThreadPoolExecutor(6) as threads:
        claims = [each for each in threads.map(lambda _: store.webhooks.claim(), range(6)) if each]
    assert len(claims) == 1
    wait(store, LEASE_S - 5)
    assert store.webhooks.claim() is None
    wait(store, 6)
    again = claim(store)
    assert again.attempts == 2
    assert store.webhooks.record(claims[0], "status 200", "delivered") is None  # too late
    assert only(store).state == "waiting"
    assert store.webhooks.record(again, "status 200", "delivered") == "delivered"
    wait(store, 1_000_000)
    assert store.webhooks.claim() is None


def test_a_delivery_put_back_is_due_at_once_with_the_attempt(store: State) -> None:
    end(store, key_with_webhook(store))
    stopped = claim(store)
    store.webhooks.put_back(stopped)
    again = claim(store)
    assert again.attempts == 1
    store.webhooks.put_back(stopped)  # too late: it is another process's
    assert store.webhooks.claim() is None
    assert store.webhooks.record(again, "status 200", "delivered") == "delivered"


def test_what_fails_is_tried_ten_times_within_a_day_after_growing_waits(store: State) -> None:
    end(store, key_with_webhook(store))
    assert list(WAITS_S) == sorted(set(WAITS_S))
    assert 20 * 3600 < sum(WAITS_S) <= 24 * 3600
    assert MAX_ATTEMPTS == 10
    for wait_s in WAITS_S:
        assert store.webhooks.record(claim(store), "status 500", "waiting") == "waiting"
        wait(store, wait_s - 4)
        assert store.webhooks.claim() is None
        wait(store, 5)
    assert store.webhooks.record(claim(store), "status 500", "waiting") == "failed"
    delivery = only(store)
    assert (delivery.state, delivery.attempts) == ("failed", 10)
    assert (delivery.key_name, delivery.outcome) == ("web", "status 500")
    wait(store, 1_000_000)
    assert store.webhooks.claim() is None


def test_an_address_that_answered_410_is_not_called_until_it_is_set_again(store: State) -> None:
    key_id, other = key_with_webhook(store), key_with_webhook(store, "other")
    end(store, key_id)
    claimed = claim(store)
    waiting, elsewhere = end(store, key_id), end(store, other)
    own = end(store, key_id, "http://job.example/hook")
    assert store.webhooks.record(claimed, "status 410", "gone") == "gone"
    states = {each.job_id: each.state for each in store.webhooks.list()}
    assert states == {claimed.job.id: "gone", waiting: "gone", elsewhere: "waiting", own: "waiting"}
    webhook = store.webhooks.show("web")
    assert webhook is not None
    assert webhook.is_disabled
    end(store, key_id)
    assert len(store.webhooks.list()) == 4
    store.webhooks.configure("web", URL)
    end(store, key_id)
    assert len(store.webhooks.list("waiting")) == 3


def test_keys_with_enough_calls_and_later_attempts_are_served_after_others(store: State) -> None:
    slow, other = key_with_webhook(store), key_with_webhook(store, "other")
    retried = end(store, slow)
    store.webhooks.record(claim(store), "status 500", "waiting")
    wait(store, WAITS_S[0] + 1)
    first, of_other = end(store, slow), end(store, other)
    claimed = store.webhooks.claim([slow])
    assert claimed is not None
    assert claimed.job.id == of_other
    assert store.webhooks.claim([slow]) is None
    assert [claim(store).job.id for _ in range(2)] == [first, retried]


@pytest.mark.parametrize("state", ["waiting", "delivered", "failed", "gone"])
def test_any_delivery_can_be_sent_again_with_all_its_attempts(store: State, state: str) -> None:
    job_id = end(store, key_with_webhook(store))
    with store.database.write() as connection:
        connection.execute(
            sa.update(WEBHOOK_DELIVERIES).values(state=state, attempts=10, due_at_s=1e12)
        )
    assert not store.webhooks.retry("no such job")
    assert store.webhooks.retry(job_id)
    assert claim(store).attempts == 1


def test_a_job_is_kept_but_not_found_while_its_webhook_waits(store: State) -> None:
    key_id = key_with_webhook(store)
    request_key, order = RequestKey(key_id, "name", "fingerprint"), JobOrder("source", None, 4, "")
    submit_again = partial(
        store.jobs.submit, key_id, order, is_metered=True, max_unfinished=9, request_key=request_key
    )
    job_id = submit_again().job.id
    assert store.jobs.cancel(key_id, job_id)
    assert not submit_again().is_changed
    assert store.jobs.find(key_id, job_id)
    with store.database.write() as connection:
        connection.execute(sa.update(JOBS).values(ended_at_s=0.0))
    assert store.jobs.remove_ended(lifetime_s=100) == 0
    assert store.jobs.find(key_id, job_id) is None
    assert store.jobs.cancel(key_id, job_id) is None
    assert store.jobs.list_page(key_id, limit=5).jobs == ()
    assert submit_again().job.id != job_id
    store.webhooks.record(claim(store), "status 200", "delivered")
    assert store.jobs.remove_ended(lifetime_s=100) == 1
    with store.database.read() as connection:
        assert connection.execute(sa.select(WEBHOOK_DELIVERIES)).all() == []


@pytest.mark.parametrize("takes_left", [True, False])
def test_the_search_for_what_is_due_uses_the_index_of_what_waits(
    store: State, takes_left: bool
) -> None:
    if store.database.is_server:
        pytest.skip("PostgreSQL's planner goes by statistics")
    with store.database.read() as connection:
        query = select_due(connection, [1], sa.literal(60.0), takes_left=takes_left).compile(
            connection, compile_kwargs={"render_postcompile": True}
        )
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {query}",
            tuple(query.params[name] for name in query.positiontup or ()),
        ).all()
    assert "ix_webhook_deliveries_waiting" in plan[0].detail


@pytest.mark.parametrize("attempts", [1, 2, MAX_ATTEMPTS - 1])
def test_a_clock_that_is_set_back_does_not_delay_the_next_attempt(
    store: State, attempts: int
) -> None:
    end(store, key_with_webhook(store))
    for _ in range(attempts - 1):
        store.webhooks.record(claim(store), "status 500", "waiting")
        wait(store, max(WAITS_S))
    store.webhooks.record(claim(store), "status 500", "waiting")
    assert store.webhooks.claim() is None
    set_clock_back(store, 7 * 3600)
    assert claim(store).attempts == attempts + 1


def test_a_crashed_call_is_repeated_although_the_clock_was_set_back(store: State) -> None:
    end(store, key_with_webhook(store))
    claim(store)
    assert store.webhooks.claim() is None
    set_clock_back(store, 3600)
    assert claim(store).attempts == 2


@pytest.mark.parametrize("step_s", [90.0, 3600.0, -90.0])
def test_a_call_under_way_is_not_repeated_when_the_clock_is_set(
    database_url: str, make_settings: MakeSettings, set_clock: SetClock, step_s: float
) -> None:
    clocks = Clocks(running=set_clock.running)
    with open_state(make_settings(database_url=database_url), clocks) as state:
        key_id = key_with_webhook(state)
        end(state, key_id)
        first = claim(state)
        end(state, key_id)
        set_clock.ahead_s += step_s
        set_clock_back(state, -step_s)
        assert claim(state).job.id != first.job.id  # what nothing calls waits no longer
        assert state.webhooks.claim() is None
        set_clock.now_s += LEASE_S
        assert claim(state).job.id == first.job.id
