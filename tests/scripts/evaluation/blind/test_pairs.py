"""Pairs of a blind comparison are fair: same crop, shuffled sides, every picture in turn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.evaluation.blind.pairs import CROP_PX, Comparison, make_pairs
from scripts.evaluation.measure import Truth

Pixels = NDArray[np.uint8]


def bright(small: Pixels) -> Pixels:
    return np.full((small.shape[0] * 2, small.shape[1] * 2, 3), 255, np.uint8)


def dark(small: Pixels) -> Pixels:
    return np.zeros((small.shape[0] * 2, small.shape[1] * 2, 3), np.uint8)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    rng = np.random.default_rng(0)
    truths = [Truth(name, rng.integers(0, 256, (300, 260, 3), np.uint8)) for name in ("a", "b")]
    upscalers = {"bright": bright, "dark": dark}
    return Comparison(upscalers, truths, ("clean", "webp"), scale=2, seed=5, count=24)


def test_each_side_shows_what_its_upscaler_made(comparison: Comparison) -> None:
    for pair in make_pairs(comparison):
        assert {pair.left, pair.right} == {"bright", "dark"}
        assert (pair.left_px == (255 if pair.left == "bright" else 0)).all()
        assert (pair.right_px == (255 if pair.right == "bright" else 0)).all()
        assert pair.left_px.shape == pair.right_px.shape == (CROP_PX, CROP_PX, 3)


def test_sides_are_shuffled_and_pictures_alternate(comparison: Comparison) -> None:
    pairs = list(make_pairs(comparison))
    assert 6 <= sum(pair.left == "dark" for pair in pairs) <= 18
    assert set(Counter((pair.truth, pair.track) for pair in pairs).values()) == {6}
    assert len({(pair.truth, pair.track) for pair in pairs[:4]}) == 4


def test_a_seed_gives_the_same_pairs_again_and_another_gives_others(comparison: Comparison) -> None:
    first, again, other = (
        [(pair.truth, pair.track, pair.left) for pair in make_pairs(each)]
        for each in (comparison, comparison, replace(comparison, seed=6))
    )
    assert first == again != other


def test_two_upscalers_and_one_pair_are_the_least(comparison: Comparison) -> None:
    with pytest.raises(ValueError, match="exactly two upscalers, not bright"):
        replace(comparison, upscalers={"bright": bright})
    with pytest.raises(ValueError, match="exactly two upscalers, not bright, dark, more"):
        replace(comparison, upscalers={"bright": bright, "dark": dark, "more": dark})
    with pytest.raises(ValueError, match="0 pairs"):
        replace(comparison, count=0)
    assert len(list(make_pairs(replace(comparison, count=1)))) == 1
