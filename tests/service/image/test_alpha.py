import numpy as np
import pytest

from service.image.alpha import bleed_colour, upscale_alpha


@pytest.mark.parametrize("scale", [2, 4])
def test_every_constant_stays_exactly_constant(scale: int) -> None:
    for level in range(256):
        large = upscale_alpha(np.full((7, 9), level, np.uint8), scale)
        assert large.shape == (7 * scale, 9 * scale)
        assert (large == level).all()


def test_an_edge_is_clipped_not_wrapped() -> None:
    alpha = np.zeros((20, 20), np.uint8)
    alpha[:, 10:] = 255

    large = upscale_alpha(alpha, 4)

    assert (large[:, :32] == 0).all()
    assert (large[:, 48:] == 255).all()
    assert (np.diff(large.astype(int), axis=1) >= 0).all()


def test_the_middle_of_each_pixel_stays_where_it_was() -> None:
    """No shift by half a pixel: a mirrored plane gives the mirrored result."""
    alpha = np.random.default_rng(0).integers(0, 256, (12, 15), dtype=np.uint8)

    mirrored = upscale_alpha(np.ascontiguousarray(alpha[::-1, ::-1]), 2)[::-1, ::-1]

    assert np.abs(mirrored.astype(int) - upscale_alpha(alpha, 2)).max() <= 1


def test_hidden_colours_are_those_of_the_nearest_visible_pixel() -> None:
    rgb = np.zeros((9, 9, 3), np.uint8)
    alpha = np.zeros((9, 9), np.uint8)
    rgb[4, 1], alpha[4, 1] = (250, 10, 20), 255
    rgb[4, 7], alpha[4, 7] = (10, 240, 30), 1

    bled = bleed_colour(rgb, alpha)

    assert (bled[:, :4] == (250, 10, 20)).all()
    assert (bled[:, 5:] == (10, 240, 30)).all()


def test_visible_colours_and_the_input_are_left_alone() -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    alpha = (rng.random((40, 50)) * 3).astype(np.uint8) * 100
    before = rgb.copy()

    bled = bleed_colour(rgb, alpha)

    assert np.array_equal(rgb, before)
    assert np.array_equal(bled[alpha > 0], rgb[alpha > 0])
    assert not np.array_equal(bled, rgb)


@pytest.mark.parametrize("level", [0, 1, 255])
def test_without_an_edge_nothing_is_bled(level: int) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)

    assert bleed_colour(rgb, np.full((8, 8), level, np.uint8)) is rgb
