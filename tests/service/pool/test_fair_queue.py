"""The order of service between keys, simulated: no time, no workers, only requests with work."""

from collections import Counter, defaultdict
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaled.pool.fair_queue import FairQueue

Request = tuple[int, int, int]
"""Key, number within the key, work."""

works = st.integers(1, 1000)


@pytest.fixture
def queue() -> FairQueue[Request]:
    return FairQueue()


def push(queue: FairQueue[Request], key_id: int, number: int, work: int = 1) -> Request:
    one = (key_id, number, work)
    queue.push(key_id, work, one)
    return one


def fill(queue: FairQueue[Request], **keys: list[int]) -> None:
    """Requests of keys "a", "b" ... with these works, a key's all before the next key's."""
    for name, of_key in keys.items():
        for number, work in enumerate(of_key):
            push(queue, ord(name), number, work)


def serve_next(queue: FairQueue[Request]) -> Request:
    one = next(queue.in_order())
    queue.serve(one)
    return one


def letters(served: list[Request]) -> str:
    return "".join(chr(key_id) for key_id, _, _ in served)


def serve_all(queue: FairQueue[Request]) -> list[Request]:
    return [serve_next(queue) for _ in range(len(queue))]


def test_the_only_key_is_served_in_order(queue: FairQueue[Request]) -> None:
    fill(queue, a=[5, 1, 9, 1])
    assert [number for _, number, _ in serve_all(queue)] == [0, 1, 2, 3]


def test_equal_keys_alternate_however_many_requests_each_has(queue: FairQueue[Request]) -> None:
    fill(queue, a=[1] * 6, b=[1] * 2, c=[1])
    assert letters(serve_all(queue)) == "abcabaaaa"


def test_the_share_is_of_work_not_of_images(queue: FairQueue[Request]) -> None:
    fill(queue, a=[1] * 12, b=[4, 4, 4])
    assert letters(serve_all(queue)) == "abaaabaaaabaaaa"


def test_a_key_that_joins_later_is_next_whatever_waits(queue: FairQueue[Request]) -> None:
    fill(queue, a=[100] * 30)
    for _ in range(10):
        queue.serve(next(queue.in_order()))  # ten at work, none of them over
    late = push(queue, ord("b"), 0, 100)
    assert next(queue.in_order()) is late


def test_an_idle_key_saves_nothing_up(queue: FairQueue[Request]) -> None:
    fill(queue, a=[1] * 20)
    fill(queue, b=[1])
    assert letters([serve_next(queue) for _ in range(10)]) == "abaaaaaaaa"
    fill(queue, b=[1] * 4)
    assert letters([serve_next(queue) for _ in range(8)]) == "babababa"


def test_a_key_that_sends_one_request_at_a_time_is_still_charged_for_its_work(
    queue: FairQueue[Request],
) -> None:
    """A key whose images are ten times as large has one for ten of the other, waiting or not."""
    fill(queue, a=[1] * 60)
    served = []
    for number in range(33):
        if not any(key_id == ord("b") for key_id, _, _ in queue.in_order()):
            push(queue, ord("b"), number, 10)
        served.append(serve_next(queue))
    assert letters(served).count("b") == 3


def test_among_keys_charged_equally_the_least_recently_served_is_first(
    queue: FairQueue[Request],
) -> None:
    fill(queue, a=[1, 1])
    serve_next(queue)
    fill(queue, b=[1])  # from the clock on, where the other one is
    assert letters(list(queue.in_order())) == "ba"


def test_a_discarded_request_is_not_charged(queue: FairQueue[Request]) -> None:
    fill(queue, a=[1, 1], b=[1])
    large = push(queue, ord("b"), 1, 1000)
    queue.discard(large)
    queue.discard(large)
    assert large not in queue
    push(queue, ord("b"), 2)
    assert letters(serve_all(queue)) == "abab"


@given(st.lists(st.tuples(st.integers(0, 4), works), max_size=40), st.data())
def test_every_request_is_served_once_and_in_its_keys_order(
    arrivals: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever comes when: something is served whenever something waits."""
    queue: FairQueue[Request] = FairQueue()
    served: list[Request] = []
    pushed: Counter[int] = Counter()
    for key_id, work in arrivals:
        push(queue, key_id, pushed[key_id], work)
        pushed[key_id] += 1
        for _ in range(data.draw(st.integers(0, len(queue)))):
            served.append(serve_next(queue))
    served += serve_all(queue)
    assert len(queue) == 0
    numbers = defaultdict(list)
    for key_id, number, _ in served:
        numbers[key_id].append(number)
    assert numbers == {key_id: list(range(count)) for key_id, count in pushed.items()}


@given(
    st.lists(st.lists(works, min_size=1, max_size=20), min_size=2, max_size=5),
    st.lists(works, max_size=10),
)
def test_keys_that_both_wait_are_never_further_apart_than_one_request_of_each(
    backlogs: list[list[int]], before: list[int]
) -> None:
    """The bound of start-time fair queueing, at every moment and whatever was served before."""
    queue: FairQueue[Request] = FairQueue()
    for number, work in enumerate(before):
        push(queue, 0, number, work)
        serve_next(queue)
    for key_id, works_of_key in enumerate(backlogs, 1):
        for number, work in enumerate(works_of_key):
            push(queue, key_id, number, work)
    had: Counter[int] = Counter()
    left = {key_id: len(each) for key_id, each in enumerate(backlogs, 1)}
    while queue:
        key_id, _, work = serve_next(queue)
        had[key_id] += work
        left[key_id] -= 1
        waiting = [each for each, count in left.items() if count]
        for one, other in combinations(waiting, 2):
            bound = max(backlogs[one - 1]) + max(backlogs[other - 1])
            assert abs(had[one] - had[other]) <= bound


@given(st.lists(works, min_size=1, max_size=5), works, st.integers(1, 5))
def test_an_endless_stream_of_new_keys_does_not_starve_a_waiting_key(
    history: list[int], of_newcomers: int, most: int
) -> None:
    """One that has been served much waits beside as many new keys as may wait.

    Each of the others has at most what the one was charged before, and one request in progress.
    """
    queue: FairQueue[Request] = FairQueue()
    for number, work in enumerate(history):
        push(queue, 0, number, work)
        push(queue, 1, number, 1)
        serve_next(queue)
    waiting = push(queue, 0, 99, 1)
    left = (most + 2) * (sum(history) + of_newcomers + 1)
    newcomer = 2
    while waiting in queue:
        while len(queue) <= most:
            push(queue, newcomer, 0, of_newcomers)
            newcomer += 1
        left -= serve_next(queue)[2]
        assert left >= 0


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 5), works, st.booleans()), max_size=80),
)
def test_no_key_loses_a_request_while_another_has_more_waiting(
    most: int, steps: list[tuple[int, int, bool]]
) -> None:
    queue: FairQueue[Request] = FairQueue()
    for number, (key_id, work, is_served) in enumerate(steps):
        one = push(queue, key_id, number, work)
        had = Counter(each[0] for each in queue.in_order())
        if len(queue) > most:
            excess = queue.choose_evicted(one)
            assert had[excess[0]] == max(had.values())
            if excess is not one:
                last = [each for each in queue.in_order() if each[0] == excess[0]][-1]
                assert excess is last
            queue.discard(excess)
        assert len(queue) <= most
        if is_served:
            serve_next(queue)


@pytest.mark.parametrize("most", [1, 2, 3, 32])
def test_the_only_key_may_fill_the_queue_and_a_second_one_still_gets_in(
    queue: FairQueue[Request], most: int
) -> None:
    queue.serve(push(queue, 1, 0))  # at work
    for number in range(most):
        push(queue, 1, number)
    assert queue.admits_new_key()
    one_more = push(queue, 1, most)
    assert queue.choose_evicted(one_more) is one_more
    queue.discard(one_more)
    first_of_another = push(queue, 2, 0)
    assert queue.choose_evicted(first_of_another) == (1, most - 1, 1)


def test_two_keys_share_the_queue_and_then_each_refuses_its_own(queue: FairQueue[Request]) -> None:
    for number in range(8):
        push(queue, 1, number)
    outcomes = []
    for number in range(6):
        one = push(queue, 2, number)
        excess = queue.choose_evicted(one)
        outcomes.append(excess[0])
        queue.discard(excess)
    assert outcomes == [1, 1, 1, 1, 2, 2]
    assert Counter(key_id for key_id, _, _ in queue.in_order()) == {1: 4, 2: 4}
    one = push(queue, 1, 99)
    assert queue.choose_evicted(one) is one


def test_with_more_keys_than_may_wait_the_one_served_last_gives_way(
    queue: FairQueue[Request],
) -> None:
    at_work = [push(queue, key_id, 0, 10 * key_id) for key_id in (1, 2, 3)]
    waiting = [push(queue, key_id, 1) for key_id in (1, 2, 3)]
    for one in at_work:
        queue.serve(one)
    new = push(queue, 4, 0)
    assert queue.choose_evicted(new) is waiting[2]
    queue.discard(waiting[2])
    assert queue.choose_evicted(push(queue, 3, 2)) == (3, 2, 1)


def test_a_full_queue_of_keys_with_one_request_each_accepts_no_new_key(
    queue: FairQueue[Request],
) -> None:
    assert not queue.admits_new_key()
    for key_id in range(5):
        push(queue, key_id, 0)
    assert not queue.admits_new_key()
    push(queue, 0, 1)
    assert queue.admits_new_key()


def test_idle_keys_are_forgotten_unless_they_are_charged_ahead(queue: FairQueue[Request]) -> None:
    push(queue, 0, 0, 10**9)
    push(queue, 1, 0)
    assert [serve_next(queue)[0] for _ in range(2)] == [0, 1]
    for key_id in range(1, 5000):
        push(queue, key_id, 1)
        serve_next(queue)
    assert len(queue._flows) < 200
    push(queue, 0, 1)
    push(queue, 9999, 0)
    assert serve_next(queue)[0] == 9999


def test_the_work_that_waits_is_known_for_each_key(queue: FairQueue[Request]) -> None:
    for key_id, number, work in ((0, 0, 5), (0, 1, 7), (1, 0, 3), (2, 0, 1)):
        push(queue, key_id, number, work)
    for _ in range(3):
        serve_next(queue)
    assert queue.waiting_work() == {0: 7}
