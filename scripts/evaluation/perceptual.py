"""Measure perceptual metrics, with packages that the service itself does not need.

NIQE, the feature distance by two networks, SSIMULACRA2 and FLIP. Each is measured where its package
is installed; a missing one is named once, with the way to install it.
"""

import importlib
import io
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from upscaled_models.quantise.features import (
    FeatureNetwork,
    feature_distance,
)
from upscaled_models.quantise.installed import MissingPackage
from upscaled_models.quantise.metrics import NaturalModel, niqe, read_natural_model

Pixels = NDArray[np.uint8]
PairMetric = Callable[[Pixels, Pixels], float]
Opened = TypeVar("Opened")

FEATURE_NETWORKS: Final = {"feature": "lite1", "feature_lite0": "lite0"}
"""Name of the network by figure. A student that was trained with one is measured by the other."""

FIGURES: Final = ("niqe", *FEATURE_NETWORKS, "ssimulacra2", "flip")


def open_ssimulacra2() -> PairMetric:
    """Return the SSIMULACRA2 of a result and its truth: 100 is equal, 90 hardly seen, below 30 bad.

    Source: the metric of libjxl, in the Python package of that name. Raises `MissingPackage`.
    """
    measure = _import("ssimulacra2").compute_ssimulacra2

    def ssimulacra2(result: Pixels, truth: Pixels) -> float:
        return float(measure(_as_file(truth), _as_file(result)))

    return ssimulacra2


def open_flip() -> PairMetric:
    """Return the mean FLIP of a result and its truth: 0 is equal, 1 the most, as seen when
    flipping.

    Source: Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", 2020; NVIDIA's
    own package, at its 67 pixels per degree. Raises `MissingPackage`.
    """
    evaluate = _import("flip_evaluator", package="flip-evaluator").evaluate

    def flip(result: Pixels, truth: Pixels) -> float:
        reference, test = (np.asarray(each, np.float32) / 255 for each in (truth, result))
        _, mean, _ = evaluate(reference, test, "LDR", inputsRGB=True, applyMagma=False)
        return float(mean)

    return flip


@dataclass(frozen=True)
class Reference:
    """A truth, and by figure the features that are computed of it once for all results."""

    pixels: Pixels
    features: Mapping[str, list[Tensor]]


@dataclass(frozen=True)
class PerceptualMeter:
    """The metrics whose packages are installed; `missing` says what to install for the others."""

    natural_model: NaturalModel | None = None
    networks: Mapping[str, FeatureNetwork] = field(default_factory=dict)
    """By figure."""
    ssimulacra2: PairMetric | None = None
    flip: PairMetric | None = None
    missing: tuple[str, ...] = ()

    @classmethod
    def open(cls, skip: Collection[str] = ()) -> "PerceptualMeter":
        """Open each metric; takes about a second.

        Args:
            skip: names of `FIGURES` that are not wanted: SSIMULACRA2 and FLIP take a second for
                1000x1000 px, several times as long as all others together.

        Raises:
            ValueError: a package's file is not the known one.
        """
        missing: list[str] = []

        def attempt(name: str, open_one: Callable[[], Opened]) -> Opened | None:
            if name in skip:
                return None
            try:
                return open_one()
            except MissingPackage as error:
                missing.append(str(error))
                return None

        networks = {
            figure: attempt(figure, partial(FeatureNetwork, name))
            for figure, name in FEATURE_NETWORKS.items()
        }
        return cls(
            natural_model=attempt("niqe", read_natural_model),
            networks={figure: network for figure, network in networks.items() if network},
            ssimulacra2=attempt("ssimulacra2", open_ssimulacra2),
            flip=attempt("flip", open_flip),
            missing=tuple(missing),
        )

    def refer_to(self, truth: Pixels) -> Reference:
        """Prepare a truth, `[h, w, 3]` uint8 RGB."""
        features = {name: network.features(truth) for name, network in self.networks.items()}
        return Reference(truth, features)

    def measure(self, result: Pixels, reference: Reference, border_px: int) -> dict[str, float]:
        """Return the figures of a result by name; `border_px` is left out of NIQE, as is usual."""
        figures = {"niqe": self.measure_niqe(result, border_px)} if self.natural_model else {}
        for name, network in self.networks.items():
            found = network.features(result)
            figures[name] = feature_distance(found, reference.features[name])
        for name, metric in (("ssimulacra2", self.ssimulacra2), ("flip", self.flip)):
            if metric:
                figures[name] = metric(result, reference.pixels)
        return figures

    def measure_niqe(self, pixels: Pixels, border_px: int) -> float:
        """Return a picture's NIQE, or NaN for one that is too small or flat to have one."""
        if self.natural_model is None:
            return math.nan
        inner = tuple(slice(border_px, side - border_px) for side in pixels.shape[:2])
        try:
            return niqe(pixels[inner], self.natural_model)
        except ValueError:
            return math.nan


def _import(module: str, package: str = "") -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(package or module) from error


def _as_file(pixels: Pixels) -> io.BytesIO:
    """Return the picture as an uncompressed file in memory."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    file.seek(0)
    return file
