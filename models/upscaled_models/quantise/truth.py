"""Compare a network that invents texture with the truth, in 8 bits and in float32."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models import accuracy
from upscaled_models.quantise.features import FeatureNetwork, feature_distance
from upscaled_models.quantise.installed import MissingPackage
from upscaled_models.quantise.metrics import NaturalModel, luma, niqe, psnr_db, read_natural_model
from upscaled_models.quantise.record import TRACKS, Pair, TrackAccuracy, TruthAccuracy
from upscaled_models.quantise.tracks import Pixels, Upscaler, make_small

Tool = TypeVar("Tool")

SMOOTH_LEVELS: Final = 4
SMOOTH_PX: Final = 13
"""Side of a smooth area: three input pixels at x4 and their neighbours; narrower pockets between
textures do not count. Of x4plus with its trunk in 8 bits, 99.94 % of such values are near; over 9
px 99.84 %, over 5 px 99.3 %, all before colour correction.
"""

NEAR_LEVELS: Final = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """A truth, the small input made of it, and the network's result for that in float32."""

    truth: Pixels
    small: Pixels
    expected: Pixels


@dataclass(frozen=True, slots=True)
class Figures:
    """Metrics of one result: luma PSNR and feature distance to the truth, and NIQE."""

    psnr_db: float
    niqe: float | None
    feature: float | None


def make_samples(
    truths: Sequence[Pixels], scale: int, upscale: Upscaler
) -> dict[str, list[Sample]]:
    """Make every truth small on every track. The sides of truths are multiples of `scale`."""
    samples: dict[str, list[Sample]] = {}
    for track in TRACKS:
        samples[track] = []
        for at, truth in enumerate(truths):
            small = make_small(track, truth, scale, str(at)).pixels
            samples[track].append(Sample(truth, small, upscale(small)))
    return samples


class TruthComparison:
    """Compares results in 8 bits with the truth; those in float32 are measured once.

    missing: why some metrics cannot be measured; empty where all can.
    """

    def __init__(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        self.missing: list[str] = []
        self._natural: NaturalModel | None = self._open(read_natural_model)
        self._features: FeatureNetwork | None = self._open(FeatureNetwork)
        self._samples = samples
        self._expected = {
            track: [self._measure(each.expected, each.truth) for each in some]
            for track, some in samples.items()
        }

    def compare(self, upscale: Upscaler) -> TruthAccuracy:
        """Measure the results of `upscale` for every sample."""
        tracks = {}
        near = total = 0
        for track, samples in self._samples.items():
            results = [upscale(each.small) for each in samples]
            tracks[track] = self._compare_track(track, samples, results)
            for sample, result in zip(samples, results, strict=True):
                is_near = _smooth_differences(sample.expected, result) <= NEAR_LEVELS
                near, total = near + int(is_near.sum()), total + is_near.size
        return TruthAccuracy(tracks=tracks, smooth_share=round(near / total, 6) if total else 1.0)

    def _compare_track(
        self, track: str, samples: Sequence[Sample], results: Sequence[Pixels]
    ) -> TrackAccuracy:
        pairs = list(zip(samples, results, strict=True))
        distances = [decibels(result, sample.expected) for sample, result in pairs]
        ours = [self._measure(result, sample.truth) for sample, result in pairs]
        expected = self._expected[track]
        return TrackAccuracy(
            pictures=len(results),
            mean_db=round(float(np.mean(distances)), 2),
            worst_db=round(min(distances), 2),
            psnr_db=_pair([each.psnr_db for each in ours], [each.psnr_db for each in expected]),
            niqe=_pair_of_some([each.niqe for each in ours], [each.niqe for each in expected]),
            feature=_pair_of_some(
                [each.feature for each in ours], [each.feature for each in expected]
            ),
        )

    def _measure(self, result: Pixels, truth: Pixels) -> Figures:
        distance = None
        if network := self._features:
            distance = feature_distance(network.features(result), network.features(truth))
        natural = niqe(result, self._natural) if self._natural else None
        return Figures(psnr_db(luma(result), luma(truth)), natural, distance)

    def _open(self, opener: Callable[[], Tool]) -> Tool | None:
        try:
            return opener()
        except MissingPackage as error:
            self.missing.append(str(error))
            return None


def decibels(result: Pixels, expected: Pixels) -> float:
    """Return the PSNR over all values."""
    return accuracy.psnr_db(float(np.square(result.astype(np.float32) - expected).mean()))


def _smooth_differences(expected: Pixels, result: Pixels) -> NDArray[np.int16]:
    """Return the differences where `expected` varies by less than `SMOOTH_LEVELS` around."""
    around = np.ones((SMOOTH_PX, SMOOTH_PX), np.uint8)
    spread = cv2.subtract(cv2.dilate(expected, around), cv2.erode(expected, around))
    is_smooth = np.asarray(spread) < SMOOTH_LEVELS
    return np.asarray(np.abs(result.astype(np.int16) - expected)[is_smooth], np.int16)


def _pair(int8: Sequence[float], float32: Sequence[float]) -> Pair:
    return Pair(int8=round(float(np.mean(int8)), 4), float32=round(float(np.mean(float32)), 4))


def _pair_of_some(int8: Sequence[float | None], float32: Sequence[float | None]) -> Pair | None:
    """Return means over the pictures with both values: NIQE is not defined for flat ones."""
    both = [
        (ours, expected)
        for ours, expected in zip(int8, float32, strict=True)
        if ours is not None and expected is not None and np.isfinite([ours, expected]).all()
    ]
    return _pair(*zip(*both, strict=True)) if both else None
