"""Results kept on disk are the upscaler's own, and each input has its own."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.evaluation.cache import cached_upscaler, hash_pixels

Pixels = NDArray[np.uint8]


def test_the_second_time_the_upscaler_does_not_run(tmp_path: Path) -> None:
    seen: list[Pixels] = []

    def upscale(small: Pixels) -> Pixels:
        seen.append(small)
        return np.asarray(small.repeat(2, axis=0).repeat(2, axis=1))

    cached = cached_upscaler(upscale, tmp_path / "kept")
    one, other = (
        np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8) for seed in (1, 2)
    )
    first, again, another = cached(one), cached(one.copy()), cached(other)
    assert len(seen) == 2
    assert np.array_equal(first, again)
    assert np.array_equal(another, other.repeat(2, axis=0).repeat(2, axis=1))
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_same_values_in_another_shape_are_another_picture() -> None:
    assert hash_pixels(np.zeros((2, 6, 3), np.uint8)) != hash_pixels(np.zeros((6, 2, 3), np.uint8))
