"""Degradations: right sizes, real harm, and clean ones clean."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from scripts.training import degradation
from scripts.training.degradation import Harm, Pixels
from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.tracks import blur, decode


@pytest.fixture(scope="module")
def truth() -> Pixels:
    return draw_page(np.random.default_rng(4))[:192, :128]


KINDS = (
    degradation.clean,
    degradation.other_kernel,
    degradation.compressed,
    degradation.camera,
    degradation.thorough,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [2, 4])
def test_every_kind_shrinks_by_the_scale(
    truth: Pixels, kind: Callable[..., bytes], scale: int
) -> None:
    for seed in range(8):
        small = decode(kind(truth, scale, np.random.default_rng(seed)))
        assert small.shape == (192 // scale, 128 // scale, 3)
        assert small.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_harmed_input_still_shows_the_picture(truth: Pixels, kind: Callable[..., bytes]) -> None:
    pristine = decode(degradation.clean(truth, 4, np.random.default_rng(0))).astype(float)
    for seed in range(8):
        harmed = decode(kind(truth, 4, np.random.default_rng(seed))).astype(float)
        assert 0 < np.abs(harmed - pristine).mean() < 25
        assert abs((harmed - pristine).mean()) < 4


def test_a_drawn_kind_reports_its_harm(truth: Pixels) -> None:
    pristine = decode(degradation.clean(truth, 4, np.random.default_rng(0)))
    drawn = [degradation.degrade(truth, 4, np.random.default_rng(seed)) for seed in range(60)]
    clean = [small for small, harm in drawn if harm == Harm.NONE]
    assert 15 < len(clean) < 40
    assert all(np.abs(small.astype(int) - pristine).mean() < 5 for small in clean)
    assert not any(np.array_equal(small, pristine) for small, harm in drawn if harm != Harm.NONE)
    assert {harm for _, harm in drawn} == set(Harm)


@pytest.mark.parametrize(("share", "clean"), [(0.0, 0), (1.0, 12)])
def test_the_share_of_unharmed_inputs_can_be_chosen(
    truth: Pixels, share: float, clean: int
) -> None:
    drawn = [degradation.degrade(truth, 4, np.random.default_rng(n), share) for n in range(12)]
    assert sum(harm == Harm.NONE for _, harm in drawn) == clean


def test_the_other_kinds_keep_their_ratios(truth: Pixels) -> None:
    """Without the 34 % that are unharmed, 36 % compressed of all are 55 % of the rest."""
    drawn = [degradation.degrade(truth, 4, np.random.default_rng(n), 0.0)[1] for n in range(200)]
    assert 90 < drawn.count(Harm.COMPRESSED) < 130


def test_the_same_random_state_harms_the_same(truth: Pixels) -> None:
    first, again = (degradation.thorough(truth, 4, np.random.default_rng(7)) for _ in range(2))
    assert first == again


def test_clean_is_pillows_antialiased_bicubic(truth: Pixels) -> None:
    expected = Image.fromarray(truth).resize((32, 48), Image.Resampling.BICUBIC)
    small = decode(degradation.clean(truth, 4, np.random.default_rng(0)))
    assert np.array_equal(small, np.asarray(expected))


def test_a_blur_keeps_flat_colour_and_spreads_a_point() -> None:
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert np.array_equal(blur(flat, (1.5, 0.5), 0.7), flat)
    point = np.zeros((9, 9, 3), np.uint8)
    point[4, 4] = 255
    along = blur(point, (1.5, 0.2))
    assert along[4, 6, 0] > 20 > along[6, 4, 0]


def test_the_shares_of_the_kinds_add_up_to_1() -> None:
    assert sum(degradation.SHARES) == pytest.approx(1.0)
    assert sum(degradation.SHARES[:2]) >= 1 / 3  # what is clean must stay so


def test_the_file_of_a_drawn_kind_decodes_to_its_pixels_and_shows_its_compression(
    truth: Pixels,
) -> None:
    kinds = set()
    for seed in range(20):
        file, harm = degradation.degrade_to_file(truth, 4, np.random.default_rng(seed))
        pixels, same_harm = degradation.degrade(truth, 4, np.random.default_rng(seed))
        assert np.array_equal(decode(file), pixels)
        assert harm is same_harm
        kinds.add((harm, file[:4]))
    assert (Harm.NONE, b"\x89PNG") in kinds
    assert not any(harm is Harm.COMPRESSED and head == b"\x89PNG" for harm, head in kinds)
