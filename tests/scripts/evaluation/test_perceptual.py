"""Perceptual figures: their direction, known values, and what happens without their packages."""

import importlib
import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.evaluation.perceptual import PerceptualMeter, open_flip, open_ssimulacra2
from upscaled_models.quantise.installed import MissingPackage

Pixels = NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def meter() -> PerceptualMeter:
    opened = PerceptualMeter.open()
    if opened.missing:
        pytest.skip(opened.missing[0])
    return opened


def test_a_result_equal_to_its_truth_is_best_in_every_figure(
    texture: Pixels, meter: PerceptualMeter
) -> None:
    figures = meter.measure(texture, meter.refer_to(texture), 0)
    assert figures["ssimulacra2"] == pytest.approx(100)
    assert figures["flip"] == pytest.approx(0, abs=1e-6)
    assert figures["feature"] == figures["feature_lite0"] == 0
    assert figures["niqe"] == pytest.approx(12.665, abs=1e-3)


@pytest.mark.slow
def test_blur_is_worse_in_every_figure_that_compares_with_the_truth(
    texture: Pixels, meter: PerceptualMeter
) -> None:
    reference = meter.refer_to(texture)
    soft, softer = (
        meter.measure(np.asarray(cv2.GaussianBlur(texture, (0, 0), s), np.uint8), reference, 0)
        for s in (0.6, 1.5)
    )
    assert 100 > soft["ssimulacra2"] > softer["ssimulacra2"]
    assert 0 < soft["flip"] < softer["flip"]
    assert 0 < soft["feature"] < softer["feature"]
    assert 0 < soft["feature_lite0"] < softer["feature_lite0"]
    assert soft["feature"] != soft["feature_lite0"]


def test_a_picture_too_small_for_niqe_has_the_other_figures(
    texture: Pixels, meter: PerceptualMeter
) -> None:
    part = texture[:64, :64]
    figures = meter.measure(part, meter.refer_to(part), 0)
    assert math.isnan(figures["niqe"])
    assert figures["feature"] == 0


def test_the_error_of_a_metric_without_its_package_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingPackage, match=r"ssimulacra2 is not installed: pip install .*lock"):
        open_ssimulacra2()
    with pytest.raises(MissingPackage, match="flip-evaluator is not installed"):
        open_flip()
    assert len(PerceptualMeter.open().missing) >= 2


def test_a_meter_without_packages_measures_nothing(texture: Pixels) -> None:
    meter = PerceptualMeter()
    assert meter.measure(texture, meter.refer_to(texture), 0) == {}
