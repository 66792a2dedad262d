"""NIQE agrees with the published package, and separates blur from a natural picture."""

import importlib
import sys
import types
import warnings

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reference.standins import torchvision_stood_in
from upscaled_models.quantise.installed import MissingPackage
from upscaled_models.quantise.metrics import NaturalModel, niqe, read_natural_model

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> NaturalModel:
    try:
        return read_natural_model()
    except MissingPackage as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("border_px", "expected"), [(0, 12.665181), (4, 12.344308)])
def test_niqe_equals_the_figures_recorded_from_basicsr(
    texture: Pixels, model: NaturalModel, border_px: int, expected: float
) -> None:
    assert niqe(
        texture[border_px : 224 - border_px, border_px : 320 - border_px], model
    ) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow  # basicsr takes 3 s to import
def test_niqe_agrees_with_basicsr(
    texture: Pixels, model: NaturalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    moved = types.ModuleType("scipy.ndimage.filters")  # of an older scipy
    moved.__dict__["convolve"] = ndimage.convolve
    monkeypatch.setitem(sys.modules, moved.__name__, moved)
    with warnings.catch_warnings(), torchvision_stood_in():
        warnings.simplefilter("ignore")
        published = importlib.import_module("basicsr.metrics").calculate_niqe
        for blur_px in (0.5, 1.0, 2.0):
            pixels = np.asarray(cv2.GaussianBlur(texture, (0, 0), blur_px), np.uint8)
            theirs = published(np.ascontiguousarray(pixels[:, :, ::-1]), 0)
            assert niqe(pixels, model) == pytest.approx(theirs, abs=1e-3)


def test_two_blocks_are_enough_and_one_is_refused(texture: Pixels, model: NaturalModel) -> None:
    assert niqe(texture[:96, :192], model) > 0
    with pytest.raises(ValueError, match="191x96 px hold fewer than two blocks"):
        niqe(texture[:96, :191], model)
    with pytest.raises(ValueError, match="190x94"):
        niqe(texture[1:95, 1:191], model)


def test_a_picture_of_one_colour_has_no_figure(model: NaturalModel) -> None:
    assert np.isnan(niqe(np.full((192, 192, 3), 90, np.uint8), model))


def test_a_flat_block_among_others_is_left_out(texture: Pixels, model: NaturalModel) -> None:
    partly = texture.copy()
    partly[:96, :96] = 128
    assert np.isfinite(niqe(partly, model))
