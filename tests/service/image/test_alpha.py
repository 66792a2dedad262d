import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from upscaled.image.alpha import REACH_PX, bleed_colour, upscale_alpha


@pytest.mark.parametrize("scale", [2, 4])
def test_every_constant_alpha_is_enlarged_to_exactly_that_level(scale: int) -> None:
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


def test_enlarging_does_not_shift_by_half_a_pixel() -> None:
    """No shift by half a pixel: a mirrored plane gives the mirrored result."""
    alpha = np.random.default_rng(0).integers(0, 256, (12, 15), dtype=np.uint8)
    mirrored = upscale_alpha(np.ascontiguousarray(alpha[::-1, ::-1]), 2)[::-1, ::-1]
    assert np.abs(mirrored.astype(int) - upscale_alpha(alpha, 2)).max() <= 1


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_large_plane_is_enlarged_as_each_part_of_it_is(
    scale: int, kind: type[np.uint8 | np.uint16]
) -> None:
    rows, columns = np.mgrid[:300, :290]
    disc = np.hypot(rows - 150, columns - 140) < 90
    noise = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, disc.shape, dtype=kind)
    for alpha in (noise, np.where(disc, noise, kind(0)), disc.astype(kind) * kind(255)):
        large, edge = upscale_alpha(alpha, scale), 3 * scale
        for top, left in ((0, 0), (60, 70), (200, 190), (170, 20)):
            part = upscale_alpha(alpha[top : top + 100, left : left + 100], scale)
            seen = large[top * scale : (top + 100) * scale, left * scale : (left + 100) * scale]
            inside = (slice(edge, -edge), slice(edge, -edge))
            apart = part[inside].astype(int) - seen[inside]
            assert np.abs(apart).max() <= (0 if kind is np.uint8 else 1)  # floats' last bit


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
def test_colours_are_left_alone_without_an_edge_of_transparency(level: int) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert bleed_colour(rgb, np.full((8, 8), level, np.uint8)) is rgb


def test_a_far_pixel_of_a_large_cut_out_has_its_nearest_colour_too() -> None:
    """Across the blocks that the work is done in."""
    rgb = np.zeros((300, 400, 3), np.uint8)
    alpha = np.zeros((300, 400), np.uint8)
    alpha[130:, :], alpha[:, 250:] = 255, 255
    rgb[130:, :], rgb[:, 250:] = (10, 200, 30), (10, 200, 30)
    bled = bleed_colour(rgb, alpha)
    assert (bled[130 - REACH_PX :, :] == (10, 200, 30)).all()
    assert (bled[:, 250 - REACH_PX :] == (10, 200, 30)).all()


def test_threads_make_the_very_same_pixels() -> None:
    generator = np.random.default_rng(2)
    rgb = generator.integers(0, 256, (500, 400, 3), dtype=np.uint8)
    alpha = np.where(generator.random((500, 400)) < 0.1, 0, 255).astype(np.uint8)
    alpha[:250, :130] = 0
    with ThreadPoolExecutor(3) as threads:
        assert np.array_equal(bleed_colour(rgb, alpha, threads), bleed_colour(rgb, alpha))
        assert np.array_equal(upscale_alpha(alpha, 4, threads), upscale_alpha(alpha, 4))


def test_no_hidden_colour_is_left_near_or_far() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    alpha = np.zeros((300, 200), np.uint8)
    alpha[:20, 30:90] = 255
    other = np.where(alpha[..., None] > 0, rgb, 255 - rgb)
    assert np.array_equal(bleed_colour(rgb, alpha), bleed_colour(other, alpha))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_enlarged_alpha_exceeds_no_level_around_it(kind: type[np.unsignedinteger]) -> None:
    peak = np.iinfo(kind).max
    levels = np.random.default_rng(0).integers(0, peak + 1, (30, 40), kind)
    levels[:, :20] = np.where(levels[:, :20] > peak // 2, peak * 3 // 4, peak // 4)
    large = upscale_alpha(levels, 4)
    assert large.dtype == kind
    kernel = np.ones((5, 5), np.uint8)
    for bound, is_wrong in ((cv2.erode, np.less), (cv2.dilate, np.greater)):
        limit = bound(levels, kernel).repeat(4, axis=0).repeat(4, axis=1)
        assert not is_wrong(large, limit).any()


@pytest.mark.parametrize("scale", [2, 4])
def test_a_binary_mask_stays_clean_up_to_one_pixel_from_its_edge(scale: int) -> None:
    mask = np.zeros((60, 60), np.uint8)
    cv2.circle(mask, (30, 28), 18, 255, -1)
    large = upscale_alpha(mask, scale)
    kernel = np.ones((3, 3), np.uint8)
    for level, sure in ((255, cv2.erode(mask, kernel)), (0, cv2.dilate(mask, kernel))):
        is_sure = (sure == level).repeat(scale, axis=0).repeat(scale, axis=1)
        is_sure = cv2.erode(is_sure.astype(np.uint8), np.ones((2 * scale + 1,) * 2, np.uint8)) > 0
        assert (large[is_sure] == level).all()


def masks() -> dict[str, NDArray[np.uint8]]:
    """Draw large masks: a disc, letters, hairs."""
    rows, columns = np.mgrid[:512, :512]
    disc = np.clip(180.5 - np.hypot(columns - 250, rows - 260), 0, 1) * 255
    letters, hairs = np.zeros((512, 512), np.uint8), np.zeros((512, 512), np.uint8)
    cv2.putText(letters, "Rag&", (10, 300), cv2.FONT_HERSHEY_COMPLEX, 5, 255, 20, cv2.LINE_AA)
    for x in range(0, 512, 23):
        cv2.line(hairs, (x, 0), (511 - x // 2, 511), 255, 3, cv2.LINE_AA)
    return {"disc": disc.astype(np.uint8), "letters": letters, "hairs": hairs}


@pytest.mark.parametrize("name", ["disc", "letters", "hairs"])
@pytest.mark.parametrize("ground", [0, 255, (0, 160, 0)], ids=["black", "white", "green"])
def test_an_enlarged_cut_out_has_less_error_than_two_common_methods(
    name: str, ground: int | tuple[int, int, int]
) -> None:
    """An orange figure over black, white and green, by an ideal network for colour.

    The peers: alpha enlarged linearly with the colours as they lie in the file, black under
    transparency; and the double pass, which enlarges the picture over black and over white and
    takes alpha from their difference.
    """
    truth = masks()[name].astype(np.float64)[..., None] / 255
    colour = np.array((230.0, 120.0, 30.0))
    small = cv2.resize(masks()[name], (128, 128), interpolation=cv2.INTER_AREA)
    rgb = np.zeros((128, 128, 3), np.uint8)
    rgb[small > 0] = colour
    over = truth * colour + (1 - truth) * np.array(ground)

    def error(large_rgb: NDArray[Any], large_alpha: NDArray[Any]) -> float:
        share = large_alpha.astype(np.float64)[..., None] / 255
        shown = share * large_rgb + (1 - share) * np.array(ground)
        return float(np.sqrt(np.mean(np.square(shown - over))))

    def cubic(pixels: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(pixels, (512, 512), interpolation=cv2.INTER_CUBIC))

    ours = error(cubic(bleed_colour(rgb, small)), upscale_alpha(small, 4))
    linear = error(cubic(rgb), cv2.resize(small, (512, 512), interpolation=cv2.INTER_LINEAR))
    share = small[..., None] / 255
    on_black = cubic(np.rint(share * rgb).astype(np.uint8)).astype(np.float64)
    on_white = cubic(np.rint(share * rgb + 255 * (1 - share)).astype(np.uint8)).astype(np.float64)
    double_alpha = np.clip(255 - (on_white - on_black).mean(axis=2), 1, 255)
    double = error(np.clip(on_black * 255 / double_alpha[..., None], 0, 255), double_alpha)
    assert ours < 0.9 * linear
    assert ours < 0.95 * double


@pytest.mark.slow
def test_nine_megapixels_are_bled_in_time() -> None:
    rows, columns = np.mgrid[:3000, :3000]
    alpha = np.where(np.hypot(columns - 1500, rows - 1500) < 1000, 255, 0).astype(np.uint8)
    rgb = np.zeros((3000, 3000, 3), np.uint8)
    started = time.process_time()
    bleed_colour(rgb, alpha)
    assert time.process_time() - started < 1.0
