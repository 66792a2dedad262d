from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.evaluation.measure import read_truths
from scripts.evaluation.metrics import acutance
from tests.service.opened import open_engine
from tests.service.upscale.box_engine import BoxEngine, RowsReady, stream_of, upscale_through
from upscaled.config import Settings
from upscaled.image.types import Image
from upscaled.upscale.loop import upscale_by_tiles
from upscaled.upscale.post_process.pattern_correction import REACH_PX, PatternCorrection
from upscaled.upscale.post_process.steps import PostProcessing, choose_post_processing
from upscaled.upscale.region import Region
from upscaled_models.backends.base import Engine
from upscaled_models.quantise.metrics import luma, psnr_db
from upscaled_models.quantise.record import TRACKS
from upscaled_models.quantise.tracks import make_small

Pixels = NDArray[np.uint8]

SIDE_PX = 96
BLOCK_PX = 24
"""A multiple of every pattern's period: a block's mean is then the pattern's own."""

YS, XS = np.mgrid[:SIDE_PX, :SIDE_PX]
MASKS = {
    "checks of 1 px": (XS + YS) % 2 == 0,
    "checks of 2 px": (XS // 2 + YS // 2) % 2 == 0,
    "diagonals": (XS + YS) % 3 == 0,
    "wide diagonals": (XS + YS) % 4 == 0,
    "upright lines": XS % 2 == 0,
    "scan lines": YS % 2 == 0,
    "lines 3 px apart": XS % 3 == 0,
    "lines 4 px apart": YS % 4 == 0,
    "dots 2 px apart": (XS % 2 == 0) & (YS % 2 == 0),
    "dots 3 px apart": (XS % 3 == 0) & (YS % 3 == 0),
    "gingham": np.where(XS // 4 % 2 == 0, (XS + YS) % 2 == 0, (YS // 4 % 2 == 0)),
    "screen": np.hypot(XS % 6 - 2.5, YS % 6 - 2.5) < 2.2,
}
COLOURS = {
    "black on white": ((0, 0, 0), (255, 255, 255)),
    "white on black": ((255, 255, 255), (0, 0, 0)),
    "red on black": ((255, 0, 0), (0, 0, 0)),
    "green on black": ((0, 255, 0), (0, 0, 0)),
    "red on blue": ((255, 0, 0), (0, 0, 255)),
    "greys": ((64, 64, 64), (192, 192, 192)),
}


def painted(mask: NDArray[np.bool_], colours: tuple[tuple[int, ...], tuple[int, ...]]) -> Pixels:
    ink, paper = np.array(colours, np.uint8)
    return np.asarray(np.where(mask[..., None], ink, paper), np.uint8)


def dithered() -> Pixels:
    """A ramp from black to white in Bayer's ordered dither of 8x8."""
    order = np.zeros((1, 1), int)
    for _ in range(3):
        order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
    ramp = np.linspace(0, 64, SIDE_PX)[None, :].repeat(SIDE_PX, 0)
    on = ramp > np.tile(order, (SIDE_PX // 8, SIDE_PX // 8))
    return painted(on, COLOURS["white on black"])


def drift_levels(source: Pixels, result: Pixels) -> float:
    """Mean over blocks of how far the result's mean colour is from the source's."""
    size = (source.shape[1] // BLOCK_PX, source.shape[0] // BLOCK_PX)
    means = [
        cv2.resize(p.astype(float), size, interpolation=cv2.INTER_AREA) for p in (source, result)
    ]
    return float(np.abs(means[0] - means[1]).mean())


@cache
def shipped(scale: int, model_x4: str = "upscaled-x4-faithful") -> Engine:
    settings = Settings(precision="exact", tuning=False, threads=1, model_x4=model_x4)
    return open_engine(settings, scale)


def upscaled(
    source: Pixels, scale: int, *, is_corrected: bool = True, engine: Engine | None = None
) -> Pixels:
    """Through the shipped faithful network, or that engine, as the service does it."""
    engine = engine or shipped(scale)
    steps = choose_post_processing(engine.info.spec, Settings(colour_lock=is_corrected))
    return np.asarray(upscale_through(Image(source), scale, engine, steps=steps).rgb, np.uint8)


@pytest.mark.parametrize("scale", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "colours",
    [
        name if name == "black on white" else pytest.param(name, marks=pytest.mark.slow)
        for name in COLOURS
    ],
)
def test_fine_patterns_keep_their_mean_colour(scale: int, colours: str) -> None:
    for name, mask in MASKS.items():
        source = painted(mask, COLOURS[colours])
        assert drift_levels(source, upscaled(source, scale)) <= 4, name


@pytest.mark.parametrize(
    ("colours", "names"),
    [
        ("black on white", ("diagonals", "dots 3 px apart", "scan lines", "upright lines")),
        *(pytest.param(each, tuple(MASKS), marks=pytest.mark.slow) for each in COLOURS),
    ],
)
def test_the_default_model_keeps_the_mean_colour_of_fine_patterns(
    colours: str, names: tuple[str, ...]
) -> None:
    for name in names:
        source = painted(MASKS[name], COLOURS[colours])
        result = upscaled(source, 4, engine=shipped(4, "upscaled-x4"))
        assert drift_levels(source, result) <= 4, name


@pytest.mark.parametrize("scale", [2, 4])
def test_dither_keeps_its_brightness(scale: int) -> None:
    source = dithered()
    without = drift_levels(source, upscaled(source, scale, is_corrected=False))
    assert drift_levels(source, upscaled(source, scale)) < min(4, without / 2)


def test_colour_lock_switches_pattern_correction_off() -> None:
    source = painted(MASKS["checks of 1 px"], COLOURS["green on black"])
    assert drift_levels(source, upscaled(source, 4, is_corrected=False)) > 20


def test_a_smooth_picture_is_left_alone() -> None:
    coarse = np.random.default_rng(3).integers(100, 156, (6, 6, 3), dtype=np.uint8)
    large = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    source = np.asarray(large, np.uint8)
    assert np.array_equal(upscaled(source, 4), upscaled(source, 4, is_corrected=False))


def noise(height: int, width: int, dtype: type = np.uint8) -> NDArray[np.uint8]:
    most = int(np.iinfo(dtype).max)
    values = np.random.default_rng(height).integers(0, most + 1, (height, width, 3), dtype)
    return np.asarray(values)


def corrected(
    source: Pixels,
    canvas: Pixels,
    bands: Iterator[int] | None = None,
    threads: Executor | None = None,
) -> Pixels:
    """The canvas, corrected in bands that end at these rows of the source."""
    canvas = canvas.copy()
    correction = PatternCorrection(source, canvas, threads)
    height, width = source.shape[:2]
    top = 0
    for bottom in bands or iter([height]):
        correction.add(Region(top, 0, bottom - top, width))
        correction.advance(bottom)
        top = bottom
    return canvas


@pytest.mark.parametrize("gain", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_shifted_mean_is_put_back(gain: int, dtype: type) -> None:
    """In 8 and 16 bits, for what the network made lighter and what it made darker."""
    level = np.iinfo(dtype).max // 255
    source: Pixels = np.full((40, 50, 3), 128 * level, dtype)
    for shift in (-60, -6, 6, 60):
        canvas: Pixels = np.full((40 * gain, 50 * gain, 3), (128 + shift) * level, dtype)
        result = corrected(source, canvas)
        assert result.dtype == dtype
        assert np.abs(result.astype(int) - 128 * level).max() <= level


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_threads_make_the_very_same_pixels(dtype: type) -> None:
    source, canvas = noise(150, 90, dtype), noise(600, 360, dtype)
    alone = corrected(source, canvas)
    assert (alone != canvas).any()
    with ThreadPoolExecutor(3) as threads:
        assert np.array_equal(corrected(source, canvas, threads=threads), alone)
        bands = iter([70, 71, 150])
        assert np.array_equal(corrected(source, canvas, bands, threads), alone)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gain", [2, 4])
def test_columns_of_flat_areas_are_left_out_without_changing_a_pixel(
    monkeypatch: pytest.MonkeyPatch, gain: int, dtype: type
) -> None:
    chance, corrected_ones = np.random.default_rng(7), 0
    for left, width in [(0, 30), (260, 1), (300, 5), (380, 130), (575, 25), (0, 600)]:
        source: Pixels = np.full((60, 600, 3), 90, dtype)
        source[20:45:2, left : left + width] = 10
        canvas = source.repeat(gain, axis=0).repeat(gain, axis=1)
        thing = canvas[20 * gain : 45 * gain, left * gain : (left + width) * gain]
        thing[:] = chance.integers(0, np.iinfo(dtype).max, thing.shape, dtype)
        result = corrected(source, canvas)
        with monkeypatch.context() as patch:
            patch.setattr(PatternCorrection, "_find_drift", lambda *_: slice(0, 600))
            assert np.array_equal(result, corrected(source, canvas)), left
        corrected_ones += not np.array_equal(result, canvas)
    assert corrected_ones > 3


def test_nothing_is_averaged_where_the_canvas_repeats_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("upscaled.upscale.post_process.pattern_correction._find_moves")
    source = noise(90, 300)
    canvas = source.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(corrected(source, canvas), canvas)


@pytest.mark.parametrize(("shift", "is_moved"), [(2, False), (3, True), (6, True)])
def test_only_drift_beyond_the_tolerance_is_corrected(shift: int, is_moved: bool) -> None:
    source = np.full((40, 50, 3), 128, np.uint8)
    canvas = np.full((160, 200, 3), 128 + shift, np.uint8)
    assert (corrected(source, canvas) != canvas).any() == is_moved


def test_pixels_at_black_or_white_leave_the_shift_to_the_others() -> None:
    """Half of the pixels have no room: the others go the whole way, and the mean is right."""
    source = np.full((48, 48, 3), 160, np.uint8)
    canvas = np.zeros((96, 96, 3), np.uint8)
    canvas[:, ::2] = 255
    result = corrected(source, canvas)
    assert (result[:, ::2] == 255).all()
    assert abs(float(result.mean()) - 160) < 1


@pytest.mark.parametrize("gain", [2, 4])
def test_bands_leave_no_seam(gain: int) -> None:
    """To the last bit, over noise, whatever the rows at which the bands end."""
    source, canvas = noise(150, 140), noise(150 * gain, 140 * gain)
    whole = corrected(source, canvas)
    assert not np.array_equal(whole, canvas)
    for step in (1, 7, REACH_PX, 33, 149):
        bands = iter([*range(step, 150, step), 150])
        assert np.array_equal(corrected(source, canvas, bands), whole), step


@pytest.mark.parametrize(("scale", "native"), [(4, 4), (2, 4), (4, 2)])
def test_tiles_leave_no_seam(scale: int, native: int) -> None:
    image, steps = Image(noise(97, 70)), PostProcessing(corrects_patterns=True)
    engines = (BoxEngine(native_scale=native, window_px=window_px) for window_px in (32, 47, 400))
    results = [upscale_through(image, scale, engine, steps=steps).rgb for engine in engines]
    assert np.array_equal(results[0], results[2])
    assert np.array_equal(results[1], results[2])


def test_rows_are_reported_only_when_they_are_final() -> None:
    image, steps = Image(noise(97, 70)), PostProcessing(corrects_patterns=True)
    with stream_of(BoxEngine(window_px=32)) as stream:
        rows = RowsReady(upscale_by_tiles(image, 2, stream, steps))
    rows.assert_final()
    assert rows.counts[-1] == 194
    assert any(0 < count < 194 for count in rows.counts)


def test_an_average_that_the_sanity_check_made_gives_the_very_same_pixels() -> None:
    """Also around holes, where the canvas repeats the source and the network's result does not,
    and where colours are corrected after the check."""
    alpha = np.full((97, 70), 255, np.uint8)
    alpha[30:60, 20:50] = 0
    rough: Pixels = np.random.default_rng(9).integers(64, 192, (97, 70, 3), dtype=np.uint8)

    def result_of(image: Image, *, checks: bool, colours: bool) -> NDArray[Any]:
        steps = PostProcessing(checks=checks, corrects_colours=colours, corrects_patterns=True)
        return upscale_through(image, 2, BoxEngine(window_px=32), steps=steps).rgb

    for image, colours in product((Image(rough), Image(rough, alpha)), (False, True)):
        expected = result_of(image, checks=False, colours=colours)
        assert np.array_equal(result_of(image, checks=True, colours=colours), expected)


def test_rows_are_left_out_only_where_no_pixel_of_theirs_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Drift around the tolerance, at borders too: noise that is smooth over 3 to 12 px."""
    moved = 0
    for side_px in (3, 5, 8, 12):
        chance = np.random.default_rng(side_px)
        source = chance.integers(90, 160, (70, 150, 3), dtype=np.uint8)
        coarse = chance.normal(0, 2.4, (70 // side_px + 1, 150 // side_px + 1, 3))
        drift = cv2.resize(coarse, (150, 70), interpolation=cv2.INTER_LINEAR)
        canvas = np.rint(source + drift).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        result = corrected(source, canvas)
        with monkeypatch.context() as patch:
            patch.setattr("cv2.norm", lambda *_: np.inf)
            assert np.array_equal(result, corrected(source, canvas)), side_px
        moved += not np.array_equal(result, canvas)
    assert 0 < moved < 4


def test_a_picture_without_colour_has_a_result_without() -> None:
    source = painted(MASKS["checks of 1 px"], COLOURS["black on white"])
    result = upscaled(source, 4)
    assert (result[..., 0] == result[..., 1]).all()
    assert (result[..., 0] == result[..., 2]).all()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scale", [2, 4])
def test_photographs_are_as_true_and_as_crisp_as_before(shared_dir: Path, scale: int) -> None:
    """Set14 in all three tracks: no dB and at most 0.1 % of the acutance lost."""
    folder = shared_dir / "images" / "quality" / "Set14"
    inner = (slice(scale, -scale), slice(scale, -scale))
    for track in TRACKS:
        figures = []
        for truth in read_truths(folder, scale):
            small = make_small(track, truth.pixels, scale, truth.name).pixels
            results = [upscaled(small, scale, is_corrected=on) for on in (False, True)]
            planes = [luma(result)[inner] for result in results]
            right = luma(truth.pixels)[inner]
            figures.append([(psnr_db(plane, right), acutance(plane)) for plane in planes])
        without, with_it = np.mean(figures, axis=0)
        assert with_it[0] > without[0] - 0.001, track
        assert with_it[1] > 0.999 * without[1], track
