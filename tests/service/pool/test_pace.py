from dataclasses import replace

import pytest

from service.pool.pace import MAX_RETRY_AFTER_S, Pace, retry_after_s
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
    ("work_left_s", "workers", "wait_s"),
    [
        ([], 1, 1),
        ([0.2], 1, 1),
        ([10, 10.5], 1, 21),
        ([10, 10.5], 2, 11),
        ([10], 0, 10),
        ([1e9], 1, MAX_RETRY_AFTER_S),
    ],
)
def test_the_wait_is_the_work_left_shared_out(
    work_left_s: list[float], workers: int, wait_s: int
) -> None:
    assert retry_after_s(work_left_s, workers) == wait_s


def test_a_slow_deep_image_makes_no_other_look_slow() -> None:
    pace = Pace()
    pace.assume({4: 1e-6})
    plain = request(width_px=100, height_px=100)

    pace.learn(replace(plain, is_deep=True), worked_s=1.0)

    assert pace.expected_s(plain) == pytest.approx(0.01)
    assert pace.expected_s(replace(plain, is_deep=True)) > 0.1
