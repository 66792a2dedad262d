"""PostProcessing in strips against the same steps in one piece."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from upscaled.upscale.post_process.colour_correction import CORRECTION_REACH_PX, correct_colours
from upscaled.upscale.post_process.sanity_check import is_plausible
from upscaled.upscale.post_process.steps import NO_POST_PROCESSING, PostProcessing
from upscaled.upscale.post_process.strips import LEAST_ROWS_PX, split_into_strips
from upscaled_models.backends.base import Window

STEPS = PostProcessing(
    check=is_plausible, correct=correct_colours, correction_reach_px=CORRECTION_REACH_PX
)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def source_of(height: int, width: int = 50) -> Window:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def result_of(source: Window, gain: int) -> Window:
    enlarged = source.repeat(gain, axis=0).repeat(gain, axis=1)
    noise = np.random.default_rng(1).integers(0, 9, enlarged.shape, dtype=np.uint8)
    return np.asarray(np.minimum(enlarged, 240) + noise, np.uint8)


@pytest.mark.parametrize("height", [1, 63, 64, 127, 128, 200, 333])
@pytest.mark.parametrize("gain", [1, 2, 4])
def test_colours_locked_in_strips_are_the_same_to_the_last_bit(
    pool: ThreadPoolExecutor, height: int, gain: int
) -> None:
    source = source_of(height)
    result = result_of(source, gain)
    lock = split_into_strips(STEPS, pool, strips=5).correct

    assert lock is not None
    np.testing.assert_array_equal(lock(source, result), correct_colours(source, result))


@pytest.mark.parametrize("row", [0, 100, 255, 332])
def test_a_fault_in_any_strip_is_found(pool: ThreadPoolExecutor, row: int) -> None:
    source = source_of(333)
    result = result_of(source, 2)
    check = split_into_strips(STEPS, pool, strips=4).check
    assert check is not None
    assert check(source, result)

    result[max(0, 2 * row - 64) : 2 * row + 64] = 0

    assert not check(source, result)


def test_a_result_of_another_size_is_found(pool: ThreadPoolExecutor) -> None:
    check = split_into_strips(STEPS, pool, strips=4).check

    assert check is not None
    assert not check(source_of(200), result_of(source_of(201), 2))


def test_windows_are_cut_only_where_that_pays(pool: ThreadPoolExecutor) -> None:
    seen: list[int] = []

    def note(source: Window, result: Window) -> bool:
        seen.append(source.shape[0])
        return True

    check = split_into_strips(PostProcessing(check=note), pool, strips=4).check
    assert check is not None
    for height in (LEAST_ROWS_PX + 1, 400):
        check(source_of(height), source_of(height))

    assert sorted(seen) == [LEAST_ROWS_PX + 1, 128, 128, 144]


def test_no_care_stays_none(pool: ThreadPoolExecutor) -> None:
    assert split_into_strips(NO_POST_PROCESSING, pool, strips=4) == NO_POST_PROCESSING
