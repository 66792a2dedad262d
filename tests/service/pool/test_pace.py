from dataclasses import replace

import pytest

from service.pool.pace import MAX_RETRY_AFTER_S, Pace, retry_after_s, work_before_s
from tests.service.pool.pools import request


def test_a_warm_up_is_the_first_guess() -> None:
    pace = Pace()
    pace.assume({4: 1e-4})
    assert pace.expected_s(request(width_px=100, height_px=200)) == pytest.approx(2)


def test_a_finished_image_is_believed_over_a_later_warm_up() -> None:
    pace = Pace()
    pace.learn(request(width_px=100, height_px=100), 3)
    pace.assume({4: 1e-9})
    assert pace.expected_s(request(width_px=100, height_px=100)) == pytest.approx(3)


def test_each_scale_has_a_pace_of_its_own() -> None:
    pace = Pace()
    pace.learn(request(scale=2), 1)
    pace.learn(request(scale=4), 5)
    assert pace.expected_s(request(scale=2)) == pytest.approx(1)
    assert pace.expected_s(request(scale=4)) == pytest.approx(5)


def test_the_pace_follows_what_is_measured() -> None:
    pace = Pace()
    pace.assume({4: 1.0})
    for _ in range(30):
        pace.learn(request(width_px=10, height_px=10), 5)
    assert pace.expected_s(request(width_px=10, height_px=10)) == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize(
    ("work_s", "workers", "starting_s", "wait_s"),
    [
        (0, 1, 0, 1),
        (0.2, 1, 0, 1),
        (20.5, 1, 0, 21),
        (20.5, 2, 0, 11),
        (10, 0, 0, 10),
        (10, 0, 2.5, 13),
        (1e9, 1, 0, MAX_RETRY_AFTER_S),
    ],
)
def test_the_wait_is_the_work_shared_out_behind_the_start(
    work_s: float, workers: int, starting_s: float, wait_s: int
) -> None:
    assert retry_after_s(work_s, workers, starting_s) == wait_s


@pytest.mark.parametrize(
    ("key_id", "own_s", "work_s"),
    [
        (1, 5, 7 + 100 + 20 + 3),  # a key that floods waits for its own, and a fair part of others
        (2, 5, 7 + 20 + 25 + 3),  # one with less gets as much of the first as its own and one more
        (4, 5, 7 + 5 + 5 + 3),  # one with nothing waiting
        (4, 1, 7 + 1 + 1 + 1),
    ],
)
def test_what_a_flooding_key_has_waiting_lengthens_nobody_elses_wait_beyond_a_share(
    key_id: int, own_s: float, work_s: float
) -> None:
    waiting_s = {1: 100.0, 2: 20.0, 3: 3.0}
    assert work_before_s(key_id, own_s, [3, 4], waiting_s) == work_s


def test_a_key_alone_waits_for_all_its_work() -> None:
    assert work_before_s(1, 5, [3, 4], {1: 10}) == 17


def test_a_slow_deep_image_makes_no_other_look_slow() -> None:
    pace = Pace()
    pace.assume({4: 1e-6})
    plain = request(width_px=100, height_px=100)

    pace.learn(replace(plain, is_deep=True), worked_s=1.0)

    assert pace.expected_s(plain) == pytest.approx(0.01)
    assert pace.expected_s(replace(plain, is_deep=True)) > 0.1
