from typing import Any

import numpy as np
import pytest

from upscaled.upscale.flat import FLAT_PX, keep_flat


@pytest.mark.parametrize("gain", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_only_where_the_source_is_flat_all_around_is_the_faithful_result_taken(
    gain: int, dtype: type[Any]
) -> None:
    source = np.full((20, 30, 3), 90, dtype)
    source[8, 12, 1] = 91
    size = (20 * gain, 30 * gain, 3)
    result, faithful = np.full(size, 7, dtype), np.full(size, 90, dtype)

    kept = keep_flat(source, result, faithful)

    around = slice((8 - FLAT_PX) * gain, (9 + FLAT_PX) * gain)
    beside = slice((12 - FLAT_PX) * gain, (13 + FLAT_PX) * gain)
    assert (kept[around, beside] == 7).all()
    kept[around, beside] = 90
    assert (kept == 90).all()
    assert kept.dtype == dtype


def test_a_picture_without_flat_areas_is_left_as_it_is() -> None:
    source = np.random.default_rng(1).integers(0, 255, (20, 20, 3), np.uint8)
    result = np.zeros((40, 40, 3), np.uint8)
    assert keep_flat(source, result, result + np.uint8(1)) is result
