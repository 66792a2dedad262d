import numpy as np
import pytest

from tests.service.upscale.box_engine import lane_of
from tests.service.upscale.test_job import ignore
from tests.service.upscale.true_engine import TrueEngine
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.loop import upscale
from upscaled.upscale.neutral import is_neutral, neutralise


def greys(height: int, width: int, kind: type[np.uint8 | np.uint16] = np.uint8) -> Pixels:
    levels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (height, width, 1), kind)
    return np.asarray(levels.repeat(3, axis=2), kind)


def tinted(result: Pixels) -> Pixels:
    """What a network trained on degraded pictures does to them."""
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


def test_a_picture_without_colour_comes_back_without() -> None:
    with lane_of(TrueEngine(fault=tinted)) as lane:
        result = upscale(Image(greys(50, 60)), 2, lane, on_tile=ignore)

    assert is_neutral(result.rgb)
    assert np.abs(result.rgb.astype(int).mean() - greys(50, 60).mean()) < 3


def test_grey_in_a_coloured_picture_is_the_networks_own() -> None:
    pixels = greys(50, 60)
    pixels[0, 0] = (255, 0, 0)
    with lane_of(TrueEngine(fault=tinted)) as lane:
        result = upscale(Image(pixels), 2, lane, on_tile=ignore)

    assert not is_neutral(result.rgb[20:])
