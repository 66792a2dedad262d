"""Strips of windows in parallel, against the same steps in one piece."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from upscaled.upscale.post_process import sanity_check
from upscaled.upscale.post_process.colour_correction import correct_colours
from upscaled.upscale.post_process.steps import LEAST_ROWS_PX, PostProcessing
from upscaled.upscale.post_process.tempering import Tempering, temper
from upscaled_models.backends.base import Window

TEMPERING = Tempering(8, 0.5)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def source_of(height: int, width: int = 50) -> Window:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def result_of(source: Window, gain: int) -> Window:
    enlarged = source.repeat(gain, axis=0).repeat(gain, axis=1)
    noise = np.random.default_rng(1).integers(0, 9, enlarged.shape, dtype=np.uint8)
    return np.asarray(np.minimum(enlarged, 240) + noise, np.uint8)


@pytest.mark.parametrize("height", [1, 63, 64, 127, 128, 200, 333])
@pytest.mark.parametrize("gain", [1, 2, 4])
def test_colours_corrected_in_strips_are_the_same_to_the_last_bit(
    threads: ThreadPoolExecutor, height: int, gain: int
) -> None:
    source = source_of(height)
    result = result_of(source, gain)
    steps = PostProcessing(corrects_colours=True, threads=threads)
    assert np.array_equal(steps.correct(source, result), correct_colours(source, result))


@pytest.mark.parametrize("height", [2, 128, 130, 400])
def test_windows_tempered_in_strips_are_the_same_to_the_last_bit(
    threads: ThreadPoolExecutor, height: int
) -> None:
    vivid = source_of(height)
    faithful, source = result_of(vivid, 1), source_of(height // 2, 25)
    steps = PostProcessing(tempering=TEMPERING, threads=threads)
    assert np.array_equal(steps.temper(source, vivid, faithful), temper(vivid, faithful, TEMPERING))


@pytest.mark.parametrize("row", [0, 100, 255, 332])
def test_a_fault_in_any_strip_is_found(threads: ThreadPoolExecutor, row: int) -> None:
    source = source_of(333)
    result = result_of(source, 2)
    steps = PostProcessing(checks=True, threads=threads)
    assert steps.is_plausible(source, result)

    result[max(0, 2 * row - 64) : 2 * row + 64] = 0

    assert not steps.is_plausible(source, result)


def test_a_result_of_another_size_is_not_plausible(threads: ThreadPoolExecutor) -> None:
    steps = PostProcessing(checks=True, threads=threads)
    assert not steps.is_plausible(source_of(200), result_of(source_of(201), 2))


@pytest.mark.parametrize(
    ("height", "strips"),
    [(LEAST_ROWS_PX + 1, [LEAST_ROWS_PX + 1]), (400, [64] * 5 + [80]), (1000, [104] + [128] * 7)],
)
def test_windows_are_cut_only_where_that_pays(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, height: int, strips: list[int]
) -> None:
    seen: list[int] = []

    def note(source: Window, result: Window) -> bool:
        seen.append(source.shape[0])
        return True

    monkeypatch.setattr(sanity_check, "is_plausible", note)
    source = source_of(height)
    assert PostProcessing(checks=True, threads=threads).is_plausible(source, source)
    assert sorted(seen) == strips


def test_without_a_step_the_result_is_kept_as_it_is(threads: ThreadPoolExecutor) -> None:
    result = result_of(source_of(200), 2)
    assert PostProcessing(threads=threads).correct(source_of(200), result) is result
