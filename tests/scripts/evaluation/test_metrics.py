"""Figures: known values, and what each figure is blind to."""

import numpy as np
import pytest

from scripts.evaluation.colour import ciede2000, mean_ciede2000
from scripts.evaluation.metrics import acutance, checkerboard, ssim
from upscaled_models.quantise.metrics import luma, psnr_db


def test_luma_runs_from_16_to_235() -> None:
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert luma(ends)[0].tolist() == pytest.approx([16, 235])


def test_psnr_of_one_level_is_48_db_and_of_nothing_infinite() -> None:
    plane = np.full((4, 4), 100.0)
    assert psnr_db(plane, plane + 1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr_db(plane, plane) == float("inf")


def test_ssim_is_1_for_itself_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(16, 235, (40, 40))
    assert ssim(plane, plane) == pytest.approx(1.0)
    little, much = (ssim(plane + rng.normal(0, s, plane.shape), plane) for s in (5, 50))
    assert 1 > little > much


def test_acutance_is_the_mean_step() -> None:
    ramp = np.tile(np.arange(8.0) * 3, (5, 1))
    assert acutance(ramp) == pytest.approx(3.0)
    assert acutance(np.zeros((5, 5))) == 0


def test_checkerboard_is_an_alternations_amplitude_and_blind_to_edges() -> None:
    ys, xs = np.mgrid[0:8, 0:8]
    assert checkerboard(100 + 3.0 * (-1.0) ** (xs + ys)) == pytest.approx(3.0)
    assert checkerboard(np.where(xs < 4, 0.0, 200.0)) == 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [  # pairs 1, 3, 4, 17, 18, 25 and 34 of table 1 in Sharma, Wu, Dalal 2005
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.8361, -74.0200), (50, 0, -82.7485), 3.4412),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_gives_the_published_values(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    found = ciede2000(np.array(first, np.float64), np.array(second, np.float64))
    assert float(found) == pytest.approx(expected, abs=1e-4)


def test_equal_pictures_have_no_colour_difference_and_a_red_cast_has() -> None:
    grey = np.full((3, 3, 3), 128, np.uint8)
    red = grey + np.array([4, 0, 0], np.uint8)
    assert mean_ciede2000(grey, grey) == 0
    assert 1 < mean_ciede2000(grey, red) < 6
