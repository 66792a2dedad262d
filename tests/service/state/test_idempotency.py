"""Idempotency keys on both databases: one answer and one charge, whichever process crashes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.service.state.conftest import MakeSettings, SetClock, key_with
from upscaled.errors import InternalError, InvalidParameter, RequestInProgress
from upscaled.state import Clocks, PaidResult, State, open_state
from upscaled.state.idempotency import LEASE_S, LIFETIME_S, RequestKey, Reservation, StoredAnswer
from upscaled.state.job_rows import JobOrder
from upscaled.state.schema import IDEMPOTENCY_KEYS, STORED_RESULTS

ANSWER = StoredAnswer("0.jpg", "image/jpeg", {"X-Upscale-Model": "m"})
RESULT = PaidResult("0.jpg", "image/jpeg")


@pytest.fixture
def key(store: State) -> RequestKey:
    return RequestKey(key_with(store, 3), "order-17", "fingerprint")


def reserve(state: State, key: RequestKey) -> Reservation:
    outcome = state.idempotency.reserve(key)
    assert isinstance(outcome, Reservation)
    return outcome


def end_lease(state: State) -> None:
    with state.database.write() as connection:
        connection.execute(sa.update(IDEMPOTENCY_KEYS).values(lease_until_s=0.0))


def test_a_request_that_is_sent_again_has_the_first_answer(store: State, key: RequestKey) -> None:
    store.idempotency.complete(reserve(store, key), ANSWER)
    assert store.idempotency.reserve(key) == ANSWER
    assert store.idempotency.reserve(key) == ANSWER


def test_a_request_under_way_is_not_begun_again(store: State, key: RequestKey) -> None:
    reservation = reserve(store, key)
    with pytest.raises(RequestInProgress):
        store.idempotency.reserve(key)
    end_lease(store)
    store.idempotency.renew(reservation)
    with pytest.raises(RequestInProgress):
        store.idempotency.reserve(key)


def test_of_many_at_once_one_is_begun(store: State, key: RequestKey) -> None:
    def attempt(_: int) -> bool:
        try:
            return isinstance(store.idempotency.reserve(key), Reservation)
        except RequestInProgress:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, range(8))) == 1


def test_another_request_under_the_key_is_refused(store: State, key: RequestKey) -> None:
    other = RequestKey(key.key_id, key.name, "another fingerprint")
    reservation = reserve(store, key)
    with pytest.raises(InvalidParameter):
        store.idempotency.reserve(other)
    store.idempotency.complete(reservation, ANSWER)
    with pytest.raises(InvalidParameter):
        store.idempotency.reserve(other)


def test_api_keys_do_not_share_names(store: State, key: RequestKey) -> None:
    reserve(store, key)
    reserve(store, RequestKey(key_with(store, 0, "other"), key.name, "another fingerprint"))


def test_a_request_that_failed_may_be_sent_again(store: State, key: RequestKey) -> None:
    first = reserve(store, key)
    store.idempotency.abandon(first)
    second = reserve(store, key)
    assert second.request_id != first.request_id
    store.idempotency.abandon(first)  # by a front end that comes too late
    with pytest.raises(RequestInProgress):
        store.idempotency.reserve(key)


def test_what_a_dead_front_end_held_is_released_and_the_request_begun_again(
    store: State, key: RequestKey
) -> None:
    first = reserve(store, key)
    store.credits.hold(key.key_id, first.request_id)
    end_lease(store)
    second = reserve(store, key)
    assert (second.is_paid, second.request_id != first.request_id) == (False, True)
    assert store.credits.balance(key.key_id) == 3
    assert store.credits.audit() == ()


def test_a_clock_that_is_set_back_does_not_lengthen_the_lease_of_a_dead_front_end(
    store: State, key: RequestKey
) -> None:
    first = reserve(store, key)
    with pytest.raises(RequestInProgress):
        store.idempotency.reserve(key)
    later_s = IDEMPOTENCY_KEYS.c.lease_until_s + 3600
    with store.database.write() as connection:
        connection.execute(sa.update(IDEMPOTENCY_KEYS).values(lease_until_s=later_s))
    assert reserve(store, key).request_id != first.request_id


@pytest.mark.parametrize("step_s", [40.0, -40.0])
def test_a_request_under_way_is_not_begun_again_when_the_clock_is_set(
    database_url: str, make_settings: MakeSettings, set_clock: SetClock, step_s: float
) -> None:
    clocks = Clocks(running=set_clock.running)
    with open_state(make_settings(database_url=database_url), clocks) as state:
        key = RequestKey(key_with(state, 3), "name", "fingerprint")
        first = reserve(state, key)
        set_clock.ahead_s += step_s
        earlier_s = IDEMPOTENCY_KEYS.c.lease_until_s - step_s
        with state.database.write() as connection:
            connection.execute(sa.update(IDEMPOTENCY_KEYS).values(lease_until_s=earlier_s))
        for passed_s in (0, LEASE_S - 1):  # it is renewed by then
            set_clock.now_s += passed_s
            with pytest.raises(RequestInProgress):
                state.idempotency.reserve(key)
        set_clock.now_s += 1
        assert reserve(state, key).request_id != first.request_id


def test_an_answer_that_is_being_made_again_is_not_begun_beside_it_when_the_clock_is_set(
    database_url: str, make_settings: MakeSettings, set_clock: SetClock
) -> None:
    clocks = Clocks(running=set_clock.running)
    with open_state(make_settings(database_url=database_url), clocks) as state:
        key = RequestKey(key_with(state, 3), "name", "fingerprint")
        state.idempotency.complete(reserve(state, key), ANSWER)
        state.idempotency.reserve_again(key, ANSWER)
        set_clock.ahead_s += 40
        end_lease(state)
        with pytest.raises(RequestInProgress):
            state.idempotency.reserve(key)
        with pytest.raises(RequestInProgress):
            state.idempotency.reserve_again(key, ANSWER)
        set_clock.now_s += LEASE_S
        assert state.idempotency.reserve_again(key, ANSWER).is_paid


def test_a_front_end_that_has_looked_at_no_request_yet_notices_that_the_clock_is_set(
    database_url: str, make_settings: MakeSettings, set_clock: SetClock
) -> None:
    settings, clocks = make_settings(database_url=database_url), Clocks(running=set_clock.running)
    with open_state(settings, clocks) as first, open_state(settings, clocks) as second:
        key = RequestKey(key_with(first, 3), "name", "fingerprint")
        reserve(first, key)
        set_clock.ahead_s += 40
        end_lease(first)
        with pytest.raises(RequestInProgress):
            second.idempotency.reserve(key)


def test_a_front_end_that_starts_just_after_the_clock_was_set_begins_no_request_under_way_again(
    database_url: str, make_settings: MakeSettings, set_clock: SetClock
) -> None:
    settings, clocks = make_settings(database_url=database_url), Clocks(running=set_clock.running)
    with open_state(settings, clocks) as first:
        key = RequestKey(key_with(first, 3), "name", "fingerprint")
        reserve(first, key)
        set_clock.ahead_s += 40
        end_lease(first)
        with open_state(settings, clocks) as second:
            for passed_s in (0, LEASE_S - 1):
                set_clock.now_s += passed_s
                with pytest.raises(RequestInProgress):
                    second.idempotency.reserve(key)
            set_clock.now_s += 1
            reserve(second, key)


@pytest.mark.parametrize("step_s", [14.0, -14.0])
def test_a_lease_outlasts_a_small_step_of_the_clock(
    store: State, key: RequestKey, step_s: float
) -> None:
    """So small that it is none by `DatabaseClock`: it may also be a pause between two reads."""
    reserve(store, key)
    moved_s = IDEMPOTENCY_KEYS.c.lease_until_s - step_s
    with store.database.write() as connection:
        connection.execute(sa.update(IDEMPOTENCY_KEYS).values(lease_until_s=moved_s))
    with pytest.raises(RequestInProgress):
        store.idempotency.reserve(key)


def test_what_a_dead_front_end_delivered_is_the_answer(store: State, key: RequestKey) -> None:
    reservation = reserve(store, key)
    store.credits.capture(store.credits.hold(key.key_id, reservation.request_id), RESULT)
    end_lease(store)
    assert store.idempotency.reserve(key) == StoredAnswer("0.jpg", "image/jpeg", {})
    assert store.credits.balance(key.key_id) == 2


def test_what_was_paid_and_has_expired_is_made_again_uncharged(
    store: State, key: RequestKey
) -> None:
    reservation = reserve(store, key)
    store.credits.capture(store.credits.hold(key.key_id, reservation.request_id), RESULT)
    with store.database.write() as connection:
        connection.execute(sa.delete(STORED_RESULTS))
    end_lease(store)
    for _ in range(2):
        expired = store.idempotency.reserve(key)
        assert expired == StoredAnswer("", "", {})
        again = store.idempotency.reserve_again(key, expired)
        assert again == Reservation(key, reservation.request_id, is_paid=True)
        with pytest.raises(RequestInProgress):
            store.idempotency.reserve(key)
        store.idempotency.abandon(again)


def test_the_answer_of_a_paid_request_is_never_removed(store: State, key: RequestKey) -> None:
    reservation = reserve(store, key)
    store.credits.capture(store.credits.hold(key.key_id, reservation.request_id), RESULT)
    store.idempotency.abandon(reservation)  # cancelled between the capture and its answer
    assert store.idempotency.reserve(key) == StoredAnswer("0.jpg", "image/jpeg", {})
    assert store.credits.balance(key.key_id) == 2


def test_an_answer_is_kept_after_a_late_renewal_and_a_late_failure(
    store: State, key: RequestKey
) -> None:
    reservation = reserve(store, key)
    store.idempotency.complete(reservation, ANSWER)
    store.idempotency.renew(reservation)
    store.idempotency.abandon(reservation)
    assert store.idempotency.reserve(key) == ANSWER


@pytest.mark.parametrize("is_retried_first", [False, True])
def test_a_late_refund_and_a_retry_do_not_both_give_what_was_paid_for(
    store: State, key: RequestKey, is_retried_first: bool
) -> None:
    reservation = reserve(store, key)
    hold = store.credits.hold(key.key_id, reservation.request_id)
    store.credits.capture(hold, RESULT)  # its caller saw a lost connection, and no refund worked
    store.credits.pending.add(hold)
    store.idempotency.abandon(reservation)
    if not is_retried_first:
        assert store.credits.retry_pending().released == 1
        assert not reserve(store, key).is_paid
        return
    answer = store.idempotency.reserve(key)
    assert isinstance(answer, StoredAnswer)
    again = store.idempotency.reserve_again(key, answer)
    assert store.credits.retry_pending().released == 0
    store.idempotency.complete(again, ANSWER)
    assert not store.credits.give_back(hold)
    assert store.credits.balance(key.key_id) == 2
    assert store.credits.audit() == ()


def test_an_answer_that_the_ledger_gave_can_be_made_again(store: State, key: RequestKey) -> None:
    reservation = reserve(store, key)
    store.credits.capture(store.credits.hold(key.key_id, reservation.request_id), RESULT)
    end_lease(store)
    answer = store.idempotency.reserve(key)
    assert isinstance(answer, StoredAnswer)
    assert store.idempotency.reserve_again(key, answer).is_paid


def test_a_refunded_request_is_charged_when_it_is_sent_again(store: State, key: RequestKey) -> None:
    reservation = reserve(store, key)
    hold = store.credits.hold(key.key_id, reservation.request_id)
    store.credits.capture(hold, RESULT)
    assert store.credits.give_back(hold)
    end_lease(store)
    assert not reserve(store, key).is_paid


def test_an_answer_whose_result_expired_is_made_again_by_one_call(
    store: State, key: RequestKey
) -> None:
    first = reserve(store, key)
    store.idempotency.complete(first, ANSWER)
    again = store.idempotency.reserve_again(key, ANSWER)
    assert again == Reservation(key, first.request_id, is_paid=True)
    with pytest.raises(RequestInProgress):
        store.idempotency.reserve_again(key, ANSWER)
    newer = StoredAnswer("1.jpg", "image/jpeg", {})
    store.idempotency.complete(again, newer)
    assert store.idempotency.reserve(key) == newer


@pytest.mark.parametrize("is_swept", [False, True])
def test_after_its_lifetime_a_key_is_a_new_one(
    store: State, key: RequestKey, is_swept: bool
) -> None:
    store.idempotency.complete(reserve(store, key), ANSWER)
    made = IDEMPOTENCY_KEYS.c.created_at_s
    for age_s, is_gone in ((LIFETIME_S - 60, False), (120, True)):
        with store.database.write() as connection:
            connection.execute(sa.update(IDEMPOTENCY_KEYS).values(created_at_s=made - age_s))
        if is_swept:
            assert store.idempotency.remove_old() == is_gone
        assert isinstance(store.idempotency.reserve(key), Reservation) == is_gone


def test_a_job_that_is_submitted_again_is_the_same_job_and_held_once(
    store: State, key: RequestKey
) -> None:
    order = JobOrder("source", None, 4, "")

    def submit(_: int) -> tuple[str, bool]:
        submitted = store.jobs.submit(
            key.key_id, order, is_metered=True, max_unfinished=9, request_key=key
        )
        return submitted.job.id, submitted.is_changed

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(submit, range(6)))
    assert len({job_id for job_id, _ in results}) == 1
    assert sum(is_new for _, is_new in results) == 1
    assert store.credits.balance(key.key_id) == 2
    claimed = store.jobs.claim()
    assert claimed is not None
    store.jobs.fail(claimed, InternalError())
    assert submit(0)[1]  # a failure is not kept
    assert not submit(0)[1]
    other = RequestKey(key.key_id, key.name, "another fingerprint")
    with pytest.raises(InvalidParameter):
        store.jobs.submit(key.key_id, order, is_metered=True, max_unfinished=9, request_key=other)


@pytest.mark.parametrize("times", [1, 2])
def test_a_job_that_was_paid_and_whose_lifetime_is_over_is_made_again_uncharged(
    store: State, key: RequestKey, times: int
) -> None:
    order = JobOrder("source", None, 4, "")

    def run(name: RequestKey) -> str:
        change = store.jobs.submit(
            key.key_id, order, is_metered=True, max_unfinished=9, request_key=name
        )
        claimed = store.jobs.claim()
        assert change.is_changed
        assert claimed is not None
        assert store.jobs.finish(claimed, PaidResult("result.jpg", "image/jpeg"))
        assert store.jobs.remove_ended(lifetime_s=-1) == 1
        return change.job.id

    first = run(key)
    balance = store.credits.balance(key.key_id)
    assert first not in {run(key) for _ in range(times)}
    assert store.credits.balance(key.key_id) == balance
    run(RequestKey(key.key_id, "another name", key.fingerprint))
    assert store.credits.balance(key.key_id) == balance - 1
    assert store.credits.audit() == ()
