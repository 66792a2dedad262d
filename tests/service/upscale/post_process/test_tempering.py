import math
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from upscaled.image.decode import decode_file
from upscaled.image.harm import Harm, measure_harm
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.post_process.tempering import (
    AUTO_STRENGTH,
    TEMPER_REACH_PX,
    Tempering,
    is_harmed,
    temper,
)

X4 = Tempering(16, 0.75)
STAINED = Tempering(16, 0.75, 1)
DEPTHS = [np.uint8, np.uint16]


def noise(height: int, width: int, seed: int, depth: type = np.uint8) -> Pixels:
    """Noise that is alike over one half and unlike over the other, by seed."""
    peak = np.iinfo(depth).max
    base = np.random.default_rng(0).integers(0, peak + 1, (height, width, 3))
    other = np.random.default_rng(seed).integers(0, peak + 1, (height, width, 3))
    near = np.clip(base + (other - base) // 50, 0, peak)
    mixed = np.where(np.arange(width)[:, None] < width // 2, near, other)
    return np.asarray(mixed, depth)


def by_the_formula(vivid: Pixels, faithful: Pixels, tempering: Tempering) -> NDArray[np.float64]:
    """The docstring's formula with plain numpy, in float64, by true Gaussians of its widths."""
    peak = np.iinfo(vivid.dtype).max
    d = np.subtract(vivid, faithful, dtype=np.float64)
    e = np.sqrt(blurred((d**2).mean(2), 3))
    g = 1 / np.sqrt(1 + (e / (tempering.limit_levels * peak / 255)) ** 2)
    narrow, wide = (
        np.stack([blurred(d[..., at], sigma) for at in range(3)], 2) for sigma in (1.7, 5.8)
    )
    passed = d - narrow + tempering.low_share * (narrow - wide)
    return np.asarray(np.clip(faithful + g[..., None] * passed, 0, peak))


def blurred(plane: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    reach = math.ceil(4 * sigma)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(plane, reach, mode="edge")
    for axis in range(2):
        padded = np.apply_along_axis(np.convolve, axis, padded, taps / taps.sum(), mode="valid")
    return padded


@pytest.mark.parametrize("depth", DEPTHS)
def test_tempering_follows_its_formula(depth: type) -> None:
    """Within a level of 255 on average over a picture that holds texture, edges and noise."""
    ys, xs = np.mgrid[:60, :80]
    scene = 120 + 60 * np.sin(xs / 7) + 50 * (ys > 30)
    texture = np.random.default_rng(1).normal(0, 8, (60, 80, 3)) * (xs > 40)[..., None]
    unit = np.iinfo(depth).max // 255
    faithful: Pixels = np.asarray(np.repeat(scene[..., None], 3, 2) * unit, depth)
    rolled = np.roll(scene, 2, 0)[..., None]
    vivid: Pixels = np.asarray(np.clip(rolled + texture, 0, 255) * unit, depth)

    result = temper(vivid, faithful, X4)

    away = np.abs(result - by_the_formula(vivid, faithful, X4)) / unit
    assert away.mean() < 1
    assert np.abs(vivid.astype(float) - result).mean() / unit > 2


@pytest.mark.parametrize("depth", DEPTHS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_window_gives_what_the_whole_picture_gives(depth: type, data: st.DataObject) -> None:
    """To the last bit, wherever it lies, over noise: the worst case for sums."""
    rows, columns = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 50))
    first_row, first_column = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    top, left = 2 * first_row - 2, 2 * first_column - 2
    bottom = 2 * data.draw(st.integers(first_row, rows))
    right = 2 * data.draw(st.integers(first_column, columns))
    height, width = 2 * rows, 2 * columns
    tempering = data.draw(st.sampled_from([X4, STAINED, Tempering(3.3, 0.37, 0.7)]))
    vivid, faithful = noise(height, width, 5, depth), noise(height, width, 9, depth)
    seen_top, seen_left = max(0, top - TEMPER_REACH_PX), max(0, left - TEMPER_REACH_PX)
    seen = (slice(seen_top, bottom + TEMPER_REACH_PX), slice(seen_left, right + TEMPER_REACH_PX))

    window = temper(vivid[seen], faithful[seen], tempering)

    whole = temper(vivid, faithful, tempering)[top:bottom, left:right]
    kept = window[top - seen_top : bottom - seen_top, left - seen_left : right - seen_left]
    assert np.array_equal(kept, whole)


def test_a_halo_one_square_short_changes_the_result() -> None:
    """The proof that the test above can fail."""
    vivid, faithful = noise(60, 60, 5), noise(60, 60, 9)
    short, undamped = TEMPER_REACH_PX - 2, Tempering(math.inf, 1)

    window = temper(vivid[30 - short :], faithful[30 - short :], undamped)[short:]

    assert not np.array_equal(window, temper(vivid, faithful, undamped)[30:])


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("harm", [Harm(), Harm(50)])
@pytest.mark.parametrize("strength", [0, 0.1, AUTO_STRENGTH, 1])
def test_the_result_is_the_faithful_one_where_both_are_flat(
    depth: type, strength: float, harm: Harm
) -> None:
    """To the last bit, however far off the vivid network's colour is."""
    tempering = Tempering.of(strength, 4, harm)
    unit = np.iinfo(depth).max // 255
    for vivid, faithful in ((77, 77), (80, 77), (0, 0), (255, 0), (0, 255), (131, 255)):
        one: Pixels = np.full((150, 20, 3), vivid * unit, depth)
        other: Pixels = np.full((150, 20, 3), faithful * unit, depth)
        assert np.array_equal(temper(one, other, tempering), other)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_shift_of_all_colours_by_the_vivid_network_is_removed(depth: type) -> None:
    """Between it and the border of another, 40 levels off, lie no more than `TEMPER_REACH_PX`."""
    unit = np.iinfo(depth).max // 255
    faithful: Pixels = np.full((60, 90, 3), 100 * unit, depth)
    vivid = faithful.copy()
    vivid[:, 45:] += 40 * unit

    result = temper(vivid, faithful, X4)

    far = [slice(None, 45 - TEMPER_REACH_PX), slice(45 + TEMPER_REACH_PX, None)]
    assert all(np.array_equal(result[:, each], faithful[:, each]) for each in far)


def test_a_grey_picture_has_a_grey_result() -> None:
    vivid, faithful = (np.repeat(noise(70, 50, seed)[..., :1], 3, 2) for seed in (5, 9))
    result = temper(vivid, faithful, X4)
    assert (result == result[..., :1]).all()


def test_stains_of_colour_that_the_vivid_network_removed_are_removed() -> None:
    """Areas 64 px wide, as JPEG's blocks of colour are at x4, under some light and shade."""
    ys, xs = np.mgrid[:192, :192]
    shade = np.repeat((120 + 10 * np.sin(xs / 9) + 10 * np.sin(ys / 11))[..., None], 3, 2)
    stain = ((xs // 64 + ys // 64) % 2)[..., None] * np.array([8, -4, 1])
    vivid: Pixels = np.asarray(np.rint(shade), np.uint8)
    faithful: Pixels = np.asarray(np.rint(shade + stain), np.uint8)

    def red_left(tempering: Tempering) -> float:
        excess = temper(vivid, faithful, tempering).astype(float)
        return float((excess[..., 0] - excess[..., 1])[70:122, :50].mean())

    assert red_left(X4) > 11
    assert red_left(STAINED) < 6


def test_the_brightness_of_areas_is_the_faithful_networks() -> None:
    ys, xs = np.mgrid[:96, :96]
    shade = 120 + 10 * np.sin(xs / 9) + 10 * np.sin(ys / 11)
    faithful: Pixels = np.repeat(np.asarray(np.rint(shade), np.uint8)[..., None], 3, 2)
    result = temper(faithful + np.uint8(6), faithful, STAINED)
    assert np.array_equal(result, faithful)


def test_texture_of_the_vivid_network_is_kept_and_a_bent_stroke_is_not() -> None:
    faithful = np.full((64, 64, 3), 128, np.uint8)
    vivid = faithful + np.random.default_rng(3).integers(-4, 5, faithful.shape, np.int16)
    vivid[:, 40:44] = 20

    result = temper(np.asarray(vivid, np.uint8), faithful, X4).astype(int)

    texture = (slice(None), slice(0, 20))
    assert np.abs(result[texture] - vivid[texture]).mean() < 0.5
    assert np.abs(result[:, 40:44] - 128).max() < 40


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("strength", [1e-12, 0.9999999])
def test_any_strength_gives_finite_pixels_between_its_ends(depth: type, strength: float) -> None:
    vivid, faithful = noise(20, 30, 5, depth), noise(20, 30, 9, depth)
    result = temper(vivid, faithful, Tempering.of(strength, 4, Harm()))
    end = temper(vivid, faithful, Tempering.of(round(strength), 4, Harm()))
    assert np.abs(result.astype(int) - end).max() <= 1


def test_strength_1_is_the_faithful_network() -> None:
    vivid, faithful = noise(20, 30, 5), noise(20, 30, 9)
    for scale in (2, 4):
        assert np.array_equal(temper(vivid, faithful, Tempering.of(1, scale, Harm())), faithful)


def test_strength_0_is_the_vivid_network_in_the_faithful_ones_colours() -> None:
    texture = np.random.default_rng(3).integers(-40, 41, (64, 64, 3), np.int16)
    faithful = np.full(texture.shape, 128, np.uint8)
    vivid = np.asarray(faithful + texture + [20, -10, 5], np.uint8)

    result = temper(vivid, faithful, Tempering.of(0, 4, Harm()))

    assert np.abs(result - (faithful + texture.astype(float))).mean() < 3


def test_more_strength_is_nearer_to_the_faithful_network() -> None:
    vivid, faithful = noise(40, 40, 5), noise(40, 40, 9)
    away = []
    for strength in (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1):
        result = temper(vivid, faithful, Tempering.of(strength, 4, Harm()))
        away.append(np.abs(result.astype(int) - faithful).mean())
    assert away == sorted(away, reverse=True)
    assert len(set(away)) == len(away)


@pytest.mark.parametrize("strength", [-0.01, 1.01, math.nan])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        Tempering.of(strength, 4, Harm())


@pytest.mark.parametrize(
    ("harm", "limit_levels"),
    [
        (Harm(96), 3),
        (Harm(90), 4),
        (Harm(85), 5),
        (Harm(80), 6),
        (Harm(76), 6.4),
        (Harm(75), 6.5),
        (Harm(60), 8),
        (Harm(1), 8),
        (Harm(None, 2), 3),
        (Harm(None, 3), 4),
        (Harm(96, 3), 4),
        (Harm(80, 3), 6),
        (Harm(96, 10), 8),
        (Harm(None, 100), 8),
    ],
)
def test_at_x2_more_harm_raises_the_limit_of_the_vivid_network(
    harm: Harm, limit_levels: float
) -> None:
    assert is_harmed(harm)
    tempering = Tempering.of(AUTO_STRENGTH, 2, harm)
    assert tempering.limit_levels == pytest.approx(limit_levels)
    assert (tempering.low_share, tempering.colour_share) == (0.8, 0)


@pytest.mark.parametrize("harm", [Harm(), Harm(97), Harm(100, 1.99), Harm(None, 1.99)])
def test_a_clean_image_is_not_harmed(harm: Harm) -> None:
    assert not is_harmed(harm)


@pytest.mark.parametrize(
    ("format_name", "options", "counts"),
    [
        ("PNG", {}, False),
        ("WEBP", {"lossless": True}, False),
        ("JPEG", {"quality": 97}, False),
        ("JPEG", {"quality": 96}, True),
        ("JPEG", {"quality": "maximum"}, True),
        ("WEBP", {"quality": 100}, False),
        ("WEBP", {"quality": 90}, True),
    ],
)
def test_files_of_lossy_encoders_are_harmed_and_of_lossless_ones_are_not(
    format_name: str, options: dict[str, object], counts: bool
) -> None:
    pixels = np.repeat(np.arange(96, dtype=np.uint8)[:, None, None] + 60, 96, 1).repeat(3, 2)
    file = BytesIO()
    PillowImage.fromarray(pixels).save(file, format_name, **options)
    assert is_harmed(measure_harm(decode_file(file.getvalue()))) == counts


@pytest.mark.parametrize(
    "figures",
    [
        (-1, 0.5),
        (math.nan, 0.5),
        (1, -0.1),
        (1, 1.1),
        (1, 0.5, -0.1),
        (1, 0.5, 1.1),
        (1, 0.5, math.nan),
    ],
)
def test_a_tempering_out_of_range_is_refused(figures: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Tempering(*figures)


@pytest.mark.parametrize(
    ("vivid", "faithful", "reason"),
    [
        ((20, 30, 3), np.zeros((20, 32, 3), np.uint8), "cannot be tempered by"),
        ((20, 30, 3), np.zeros((20, 30, 1), np.uint8), "cannot be tempered by"),
        ((20, 30, 3), np.zeros((20, 30, 3), np.uint16), "cannot be tempered by"),
        ((21, 30, 3), np.zeros((21, 30, 3), np.uint8), "a side is odd"),
        ((20, 31, 3), np.zeros((20, 31, 3), np.uint8), "a side is odd"),
    ],
)
def test_results_of_another_size_or_depth_or_an_odd_side_are_refused(
    vivid: tuple[int, ...], faithful: Pixels, reason: str
) -> None:
    """Squares of an odd side would lie elsewhere than the whole image's."""
    with pytest.raises(ValueError, match=reason):
        temper(np.zeros(vivid, np.uint8), faithful, X4)


@pytest.mark.parametrize(
    ("harm", "tempering"),
    [
        *((harm, X4) for harm in (Harm(), Harm(76), Harm(100), Harm(None, 10))),
        *((harm, STAINED) for harm in (Harm(75), Harm(30), Harm(1, 10))),
    ],
)
def test_at_x4_colours_are_the_faithful_ones_but_for_stains_of_compression(
    harm: Harm, tempering: Tempering
) -> None:
    assert Tempering.of(AUTO_STRENGTH, 4, harm) == tempering


@pytest.mark.parametrize(("sigma", "is_harm"), [(1, False), (3, True)])
def test_noise_of_3_levels_is_harm_and_of_1_is_not(sigma: float, is_harm: bool) -> None:
    grain = np.random.default_rng(4).normal(128, sigma, (160, 160, 3))
    assert is_harmed(measure_harm(Image(np.asarray(np.rint(grain), np.uint8)))) == is_harm
