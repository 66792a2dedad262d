"""Compare 8-bit layers with float32 of their own network, computed by OpenVINO as in production.

The largest differences count as much as the mean: a white that turns grey is no small error. A
network that invents texture is also compared with the truth, in 8 bits and in float32.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from upscaled_models import accuracy
from upscaled_models.backends.openvino.graph import build_parts, finish_window
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.backends.openvino.runtime import choose_tail_precision, compile_graph
from upscaled_models.families import Family, Shape
from upscaled_models.quantise.features import FeatureNetwork, feature_distance
from upscaled_models.quantise.installed import MissingPackage
from upscaled_models.quantise.metrics import NaturalModel, luma, niqe, psnr_db, read_natural_model
from upscaled_models.quantise.pictures import FLAT_COLOURS, flat_pictures
from upscaled_models.quantise.record import (
    TRACKS,
    Pair,
    QuantisedAccuracy,
    TrackAccuracy,
    TruthAccuracy,
)
from upscaled_models.quantise.tracks import Pixels, Upscaler, make_small

Tool = TypeVar("Tool")

FLAT_SIDE_PX: Final = 16
SMOOTH_LEVELS: Final = 4
SMOOTH_PX: Final = 13
"""Side of a smooth area: three input pixels at x4 and their neighbours; narrower pockets between
textures do not count. Of x4plus with its trunk in 8 bits, 99.94 % of such values are near; over 9
px 99.84 %, over 5 px 99.3 %, all before colour correction.
"""

NEAR_LEVELS: Final = 2


def measure_quantised(
    layers: Layers,
    upscale: Upscaler,
    expect: Upscaler,
    pictures: Iterable[Pixels],
    truth: TruthAccuracy | None = None,
) -> QuantisedAccuracy:
    """Compare on `pictures` (uint8 `[h, w, 3]`) unused by calibration, and on flat colours.

    Args:
        layers: the layers that `upscale` runs.
        upscale, expect: the network in 8 bits and in float32, for whole pictures.
        truth: the comparison with the truth, for a network that invents texture.
    """
    greys = tuple((level, level, level) for level in range(LEVELS + 1))
    flats = flat_pictures((*greys, *FLAT_COLOURS), FLAT_SIDE_PX)
    sources = list(pictures)
    (expected, expected_flats), (got, got_flats) = (
        ([run(each) for each in sources], [run(each) for each in flats])
        for run in (expect, upscale)
    )
    found = accuracy.measure_accuracy(expected, got, flats, expected_flats, got_flats)
    return QuantisedAccuracy(
        psnr_db=round(found.psnr_db, 2),
        largest=found.largest,
        pictures=len(sources),
        flat_largest=found.flat_largest or 0,
        are_flats_kept=found.is_flat_kept,
        float_layers=[
            name for name, layer in layers.convolutions.items() if layer.quantised is None
        ],
        truth=truth,
    )


def quantised_upscaler(family: Family, shape: Shape, layers: Layers) -> Upscaler:
    """Return a function for whole pictures, uint8 `[h, w, 3]` to uint8 at the native scale."""
    threads = torch.get_num_threads()
    graphs = build_parts(family, shape, layers)
    hints = ["f32", choose_tail_precision()] if len(graphs) > 1 else ["f32"]
    steps = [
        compile_graph(graph, precision=hint, threads=threads)
        for graph, hint in zip(graphs, hints, strict=True)
    ]

    def upscale(picture: Pixels) -> Pixels:
        made = picture[None]
        for step in steps:
            made = step(made)[0]
        return finish_window(made[0], picture, family, 1)

    return upscale


def float_upscaler(network: nn.Module) -> Upscaler:
    """Return a function for whole pictures in float32, which computes each picture once."""
    known: dict[tuple[tuple[int, ...], bytes], Pixels] = {}

    @torch.inference_mode()
    def upscale(picture: Pixels) -> Pixels:
        key = (picture.shape, picture.tobytes())
        if key not in known:
            x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / LEVELS
            y = network(x.contiguous(memory_format=torch.channels_last))
            levels = (y[0].clamp(0, 1) * LEVELS + 0.5).to(torch.uint8)
            known[key] = np.asarray(levels.permute(1, 2, 0).contiguous().numpy())
        return known[key]

    return upscale


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
    """Compares results in 8 bits with the truth; `missing` is why some metrics cannot be."""

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
