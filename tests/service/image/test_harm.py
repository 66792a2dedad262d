import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.service.image.jpeg_samples import save_jpeg
from tests.service.image.samples import save
from upscaled.image.decode import decode_file
from upscaled.image.formats.webp.reader import find_jpeg_quality
from upscaled.image.formats.webp.structure import read_first_image
from upscaled.image.harm import Harm, measure_harm, measure_noise
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled_models.quantise.drawing import draw_page


def scene(height: int = 200, width: int = 240) -> NDArray[np.float64]:
    """Draw smooth areas, an edge, and texture in one corner, as in a photograph."""
    ys, xs = np.mgrid[:height, :width]
    smooth = 110 + 50 * np.sin(xs / 40) + 30 * np.cos(ys / 55) + 60 * (xs + ys > 300)
    rough = np.random.default_rng(3).normal(0, 1, (height, width))
    texture = cv2.GaussianBlur(rough, (0, 0), 1.0) * 60 * ((xs > width // 2) & (ys > height // 2))
    return np.asarray(np.repeat((smooth + texture)[..., None], 3, 2) * [1, 0.9, 0.8])


def noisy(sigma: float, depth: type = np.uint8, seed: int = 1) -> Pixels:
    pixels = scene() + np.random.default_rng(seed).normal(0, sigma, scene().shape)
    unit = np.iinfo(depth).max / 255
    return np.asarray(np.clip(np.rint(pixels * unit), 0, 255 * unit), depth)


@pytest.mark.parametrize("sigma", [1, 2, 3, 5, 10, 20])
def test_white_noise_is_measured(sigma: float) -> None:
    assert abs(measure_noise(noisy(sigma)) - sigma) < 0.3 + 0.05 * sigma


def test_deep_images_are_measured_in_the_same_levels() -> None:
    assert abs(measure_noise(noisy(3, np.uint16)) - 3) < 0.3


def test_a_clean_scene_has_next_to_no_noise() -> None:
    assert measure_noise(noisy(0)) < 0.6


def test_texture_alone_is_no_noise() -> None:
    rough = np.random.default_rng(3).normal(0, 1, (160, 160))
    for width in (1.0, 1.5):
        texture = cv2.GaussianBlur(rough, (0, 0), width) * 20 + 128
        assert measure_noise(np.asarray(np.repeat(texture[..., None], 3, 2), np.uint8)) == 0


def test_patterns_and_drawn_pages_have_no_noise() -> None:
    ys, xs = np.mgrid[:128, :128]
    for mask in ((xs + ys) % 2, (xs // 2 + ys // 2) % 2, xs % 2 * (ys % 2), (xs + ys) % 3 == 0):
        pattern = np.asarray(np.repeat(mask[..., None] * 40 + 100, 3, 2), np.uint8)
        assert measure_noise(pattern) == 0
    for seed in range(3):
        assert measure_noise(draw_page(np.random.default_rng(seed))) < 1


def test_a_noisy_photograph_on_white_is_noisy() -> None:
    """White paper is clipped: it says nothing about the camera."""
    page = np.full((600, 600, 3), 255, np.uint8)
    page[100:300, 100:340] = noisy(5)
    assert measure_noise(page) > 4


def test_noise_that_alpha_hides_does_not_count() -> None:
    page = np.asarray(noisy(0), np.uint8)
    alpha = np.full(page.shape[:2], 255, np.uint8)
    alpha[:150] = 0
    over_noise = page.copy()
    over_noise[:150] = noisy(20)[:150]
    assert measure_harm(Image(over_noise, alpha)) == measure_harm(Image(page, alpha))
    assert measure_harm(Image(over_noise)) != measure_harm(Image(page))


def test_a_jpeg_file_has_its_quality_and_a_png_none() -> None:
    pixels = np.asarray(noisy(0), np.uint8)
    jpeg, png = decode_file(save_jpeg(pixels, quality=83)), decode_file(save(pixels, "PNG"))
    assert measure_harm(jpeg) == Harm(83, measure_noise(jpeg.rgb))
    assert measure_harm(png) == Harm(None, measure_noise(pixels))


@pytest.mark.parametrize(
    ("quality", "like"), [(100, 98), (95, 96), (90, 94), (80, 87), (50, 69), (30, 46), (0, 5)]
)
def test_a_webp_file_has_the_quality_of_a_jpeg_with_its_loss(quality: int, like: int) -> None:
    pixels = np.asarray(noisy(0), np.uint8)
    for method in (0, 4, 6):
        harm = measure_harm(decode_file(save(pixels, "WEBP", quality=quality, method=method)))
        assert harm.jpeg_quality is not None
        assert abs(harm.jpeg_quality - like) <= (14 if quality < 80 else 4)


def test_a_webp_file_without_loss_has_no_quality() -> None:
    pixels = np.asarray(noisy(0), np.uint8)
    assert decode_file(save(pixels, "WEBP", lossless=True)).jpeg_quality is None


def test_avif_has_the_typical_quality_of_cameras() -> None:
    pixels = np.asarray(noisy(0), np.uint8)
    assert decode_file(save(pixels, "AVIF"), {"AVIF"}).jpeg_quality == 90


def test_a_webp_frame_whose_header_is_cut_short_has_no_quality() -> None:
    whole = read_first_image(save(np.asarray(noisy(0), np.uint8), "WEBP"))
    assert find_jpeg_quality(replace(whole, bitstream=whole.bitstream[:12])) is None


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    depth=st.sampled_from([np.uint8, np.uint16]),
    sigma=st.sampled_from([0, 1, 300]),
)
def test_any_size_and_content_gives_a_finite_figure(
    height: int, width: int, depth: type, sigma: int
) -> None:
    grain = np.random.default_rng(height).normal(100, sigma, (height, width, 3))
    pixels: Pixels = np.asarray(np.clip(grain, 0, 255), depth)
    assert 0 <= measure_noise(pixels) < 255


def test_the_same_image_gives_the_same_figure() -> None:
    assert measure_noise(noisy(4)) == measure_noise(noisy(4).copy())
    assert measure_noise(np.asfortranarray(noisy(4))) == measure_noise(noisy(4))


def test_noise_of_a_large_image_is_measured_in_half_a_second() -> None:
    """Blocks are sampled: 12 megapixels take 8 ms on one core of an AMD EPYC."""
    large = np.tile(noisy(5), (15, 17, 1))
    start = time.process_time()
    assert measure_noise(large) > 4
    assert time.process_time() - start < 0.5
