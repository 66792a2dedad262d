from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scripts.evaluation.measure import read_truths
from scripts.evaluation.metrics import acutance
from scripts.evaluation.upscalers import network_upscaler, open_network
from tests.service.upscale.box_engine import BoxEngine, upscale_through
from tests.service.upscale.true_engine import TrueEngine
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.post_process.colour_correction import (
    CORRECTION_REACH_PX,
    FLAT_PX,
    correct_colours,
    equal_pixels,
    keep_flat,
)
from upscaled.upscale.post_process.steps import PostProcessing, is_neutral, neutralise
from upscaled_models.quantise.metrics import luma, psnr_db
from upscaled_models.quantise.record import TRACKS
from upscaled_models.quantise.tracks import make_small


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Pixels:
    coarse = noise(6, 6, seed=4)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def enlarged(source: Pixels, gain: int) -> Pixels:
    size = (source.shape[1] * gain, source.shape[0] * gain)
    return np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("gain", [2, 4])
def test_every_grey_keeps_its_level_whatever_the_network_makes_of_it(gain: int) -> None:
    """At the borders too, where networks are furthest off."""
    for level in range(256):
        source = np.full((9, 11, 3), level, np.uint8)
        assert (correct_colours(source, noise(9 * gain, 11 * gain, level)) == level).all()


def test_every_grey_of_16_bits_keeps_its_level() -> None:
    for level in (0, 1, 255, 257, 30_001, 65_534, 65_535):
        source = np.full((9, 11, 3), level, np.uint16)
        result = np.random.default_rng(level).integers(0, 65_536, (36, 44, 3), np.uint16)
        locked = correct_colours(source, result)
        assert locked.dtype == np.uint16
        assert (locked == level).all()


@pytest.mark.parametrize("gain", [2, 4])
@pytest.mark.parametrize("shift", [(6, -4, 9), (-12, -12, 3)])
def test_a_shift_of_all_colours_is_undone(gain: int, shift: tuple[int, int, int]) -> None:
    source = np.clip(smooth(60, 70), 30, 220)
    right = enlarged(source, gain)

    locked = correct_colours(source, np.asarray(right + np.array(shift), np.uint8))

    assert np.abs(locked.astype(int) - right).max() <= 3
    assert np.abs(locked.astype(int) - right).mean() < 0.5


@pytest.mark.parametrize(("scale", "native"), [(4, 4), (2, 4), (4, 2), (2, 2)])
def test_tiles_have_no_seams(scale: int, native: int) -> None:
    """To the last bit, over noise: the worst case for rounding."""
    steps = PostProcessing(corrects_colours=True)
    for height, width in ((70, 61), (97, 40)):
        image = Image(noise(height, width))
        engines = (BoxEngine(native_scale=native, window_px=px) for px in (32, 47, 400))
        results = [upscale_through(image, scale, engine, steps=steps).rgb for engine in engines]
        assert np.array_equal(results[0], results[2])
        assert np.array_equal(results[1], results[2])


class ShortReach(PostProcessing):
    def reach_px(self, gain: int) -> int:
        return CORRECTION_REACH_PX - 1


def test_a_halo_one_pixel_short_changes_the_result() -> None:
    """The proof that the test above can fail."""
    image, steps = Image(noise(97, 70)), ShortReach(corrects_colours=True)
    engines = (BoxEngine(native_scale=4, window_px=window_px) for window_px in (32, 400))
    results = [upscale_through(image, 4, engine, steps=steps).rgb for engine in engines]
    assert not np.array_equal(results[0], results[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", ["realesr-general-x4v3.fp16.safetensors", "realesr-animevideov3.pth"]
)
def test_official_weights_become_truer_and_stay_as_crisp(shared_dir: Path, name: str) -> None:
    """Set14 in all three tracks: at least 0.2 dB truer, and at most 1 % of the acutance lost."""
    network, scale = open_network(str(shared_dir / "weights" / name), shared_dir)
    run = network_upscaler(network, scale, scale)
    inner = (slice(scale, -scale), slice(scale, -scale))
    for track in TRACKS:
        figures = []
        for truth in read_truths(shared_dir / "images" / "quality" / "Set14", scale):
            small = make_small(track, truth.pixels, scale, truth.name).pixels
            raw = run(small)
            locked = np.asarray(correct_colours(small, raw), np.uint8)
            planes = [luma(pixels)[inner] for pixels in (raw, locked)]
            right = luma(truth.pixels)[inner]
            figures.append([(psnr_db(plane, right), acutance(plane)) for plane in planes])
        raw_mean, locked_mean = np.mean(figures, axis=0)
        assert locked_mean[0] > raw_mean[0] + 0.2, track
        assert locked_mean[1] > 0.99 * raw_mean[1], track


def greys(height: int, width: int, kind: type[np.uint8 | np.uint16] = np.uint8) -> Pixels:
    levels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (height, width, 1), kind)
    return np.asarray(levels.repeat(3, axis=2), kind)


def tinted(result: Pixels) -> Pixels:
    """Tint pictures as a network trained on degraded ones does."""
    return np.asarray(np.clip(result + np.array((9, 0, -3)), 0, 255), result.dtype)


@pytest.mark.parametrize("at", [(0, 0, 0), (130, 3, 2), (199, 9, 1)])
def test_one_coloured_pixel_makes_a_coloured_picture(at: tuple[int, int, int]) -> None:
    pixels = greys(200, 10)
    assert is_neutral(pixels)
    pixels[at] ^= 1
    assert not is_neutral(pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_grey_is_its_own_luma(kind: type[np.uint8 | np.uint16]) -> None:
    count = int(np.iinfo(kind).max) + 1
    every = np.empty((16, count // 16, 3), kind)
    every[:] = np.arange(count).reshape(16, -1, 1)
    assert np.array_equal(neutralise(every), every)


def test_a_tint_becomes_its_luma() -> None:
    pixels = np.array([[[101, 99, 102], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert neutralise(pixels)[0].tolist() == [[100] * 3, [76] * 3, [150] * 3, [29] * 3]


def test_a_result_of_a_picture_without_colour_has_none() -> None:
    result = upscale_through(Image(greys(50, 60)), 2, TrueEngine(fault=tinted))

    assert is_neutral(result.rgb)
    assert np.abs(result.rgb.astype(int).mean() - greys(50, 60).mean()) < 3


def test_grey_in_a_coloured_picture_is_the_networks_own() -> None:
    pixels = greys(50, 60)
    pixels[0, 0] = (255, 0, 0)
    result = upscale_through(Image(pixels), 2, TrueEngine(fault=tinted))

    assert not is_neutral(result.rgb[20:])


@pytest.mark.parametrize("gain", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_only_where_the_source_is_flat_all_around_is_the_faithful_result_used(
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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_equal_where_all_three_channels_are(dtype: type[Any]) -> None:
    one = np.random.default_rng(2).integers(0, 3, (40, 50, 3)).astype(dtype)
    other = np.random.default_rng(3).integers(0, 3, (40, 50, 3)).astype(dtype)
    other[:, :9] += dtype(np.iinfo(dtype).max - 2)

    equal = equal_pixels(one, other)

    assert equal.dtype == np.bool_
    assert np.array_equal(equal, (one == other).all(axis=2))
    assert 0 < equal.sum() < equal.size
