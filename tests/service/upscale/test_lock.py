from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.evaluation.measure import read_truths
from scripts.evaluation.metrics import acutance
from scripts.evaluation.upscalers import network_upscaler, open_network
from tests.service.upscale.box_engine import BoxEngine, lane_of
from upscaled.image.types import Image
from upscaled.upscale.lock import LOCK_PX, lock_colours
from upscaled.upscale.loop import Care, upscale
from upscaled_models.quantise.metrics import luma, psnr_db
from upscaled_models.quantise.tracks import GOAL_TRACKS, TRACKS

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Pixels:
    coarse = noise(6, 6, seed=4)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def enlarged(source: Pixels, gain: int) -> Pixels:
    size = (source.shape[1] * gain, source.shape[0] * gain)
    return np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("gain", [2, 4])
def test_every_grey_comes_back_whatever_the_network_made_of_it(gain: int) -> None:
    """At the borders too, where networks are furthest off."""
    for level in range(256):
        source = np.full((9, 11, 3), level, np.uint8)
        assert (lock_colours(source, noise(9 * gain, 11 * gain, level)) == level).all()


def test_every_deep_grey_comes_back() -> None:
    for level in (0, 1, 255, 257, 30_001, 65_534, 65_535):
        source = np.full((9, 11, 3), level, np.uint16)
        result = np.random.default_rng(level).integers(0, 65_536, (36, 44, 3), np.uint16)
        locked = lock_colours(source, result)
        assert locked.dtype == np.uint16
        assert (locked == level).all()


@pytest.mark.parametrize("gain", [2, 4])
@pytest.mark.parametrize("shift", [(6, -4, 9), (-12, -12, 3)])
def test_a_shift_of_all_colours_is_undone(gain: int, shift: tuple[int, int, int]) -> None:
    source = np.clip(smooth(60, 70), 30, 220)
    right = enlarged(source, gain)

    locked = lock_colours(source, np.asarray(right + np.array(shift), np.uint8))

    assert np.abs(locked.astype(int) - right).max() <= 3
    assert np.abs(locked.astype(int) - right).mean() < 0.5


@pytest.mark.parametrize(("scale", "native"), [(4, 4), (2, 4), (4, 2), (2, 2)])
def test_tiles_have_no_seams(scale: int, native: int) -> None:
    """To the last bit, over noise: the worst case for rounding."""
    care = Care(lock=lock_colours, lock_px=LOCK_PX)
    for height, width in ((70, 61), (97, 40)):
        image = Image(noise(height, width))
        results = []
        for window_px in (32, 47, 400):
            engine = BoxEngine(native_scale=native, window_px=window_px)
            with lane_of(engine) as lane:
                results.append(upscale(image, scale, lane, on_tile=ignore, care=care).rgb)
        assert np.array_equal(results[0], results[2])
        assert np.array_equal(results[1], results[2])


def test_a_halo_one_pixel_short_shows() -> None:
    """The proof that the test above can fail."""
    care = Care(lock=lock_colours, lock_px=LOCK_PX - 1)
    image = Image(noise(97, 70))
    results = []
    for window_px in (32, 400):
        with lane_of(BoxEngine(native_scale=4, window_px=window_px)) as lane:
            results.append(upscale(image, 4, lane, on_tile=ignore, care=care).rgb)
    assert not np.array_equal(results[0], results[1])


def ignore(done: int, total: int) -> None:
    """An `on_tile` of nobody."""


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
    for track in GOAL_TRACKS:
        figures = []
        for truth in read_truths(shared_dir / "images" / "quality" / "Set14", scale):
            small = TRACKS[track](truth.pixels, scale, truth.name)
            raw = run(small)
            locked = np.asarray(lock_colours(small, raw), np.uint8)
            planes = [luma(pixels)[inner] for pixels in (raw, locked)]
            right = luma(truth.pixels)[inner]
            figures.append([(psnr_db(plane, right), acutance(plane)) for plane in planes])
        raw_mean, locked_mean = np.mean(figures, axis=0)
        assert locked_mean[0] > raw_mean[0] + 0.2, track
        assert locked_mean[1] > 0.99 * raw_mean[1], track
