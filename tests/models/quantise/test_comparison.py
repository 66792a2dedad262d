import numpy as np
import pytest
from numpy.typing import NDArray

from upscaled_models.quantise import comparison as comparing
from upscaled_models.quantise import features, metrics
from upscaled_models.quantise.comparison import Sample, TruthComparison, decibels, make_samples
from upscaled_models.quantise.installed import MissingPackage
from upscaled_models.quantise.record import TRACKS

Pixels = NDArray[np.uint8]
SIDE_PX = 64


def draw_truths(count: int = 2) -> list[Pixels]:
    rng = np.random.default_rng(2)
    truths = [rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8) for _ in range(count)]
    for each in truths:
        each[: SIDE_PX // 2] = 90  # smooth
    return truths


def enlarge(small: Pixels) -> Pixels:
    return small.repeat(4, 0).repeat(4, 1)


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> TruthComparison:
    """Nearest-neighbour enlargement, where the packages for NIQE and features are missing."""

    def refuse(*_: object) -> None:
        raise MissingPackage("basicsr")

    monkeypatch.setattr(comparing, "read_natural_model", refuse)
    monkeypatch.setattr(comparing, "FeatureNetwork", refuse)
    return TruthComparison(make_samples(draw_truths(), 4, enlarge))


def test_a_metric_without_its_package_is_reported_and_left_empty(
    comparison: TruthComparison,
) -> None:
    assert all("basicsr is not installed" in reason for reason in comparison.missing)
    proof = comparison.compare(enlarge)
    assert set(proof.tracks) == set(TRACKS)
    for track in proof.tracks.values():
        assert (track.niqe, track.feature) == (None, None)
        assert (track.pictures, track.mean_db, track.psnr_db.rise) == (2, 120.0, 0.0)
    assert proof.smooth_share == 1.0


def test_smooth_areas_are_compared_apart_from_busy_ones(comparison: TruthComparison) -> None:
    def shift_smooth(small: Pixels) -> Pixels:
        result = enlarge(small)
        result[: SIDE_PX // 4] += 3
        return result

    def shift_busy(small: Pixels) -> Pixels:
        result = enlarge(small)
        result[SIDE_PX * 3 // 4 :] //= 2
        return result

    assert 0.3 < comparison.compare(shift_smooth).smooth_share < 0.8
    assert comparison.compare(shift_busy).smooth_share > 0.9
    assert comparison.compare(shift_busy).mean_db < comparison.compare(shift_smooth).mean_db


def test_nearer_to_the_truth_is_a_rise(comparison: TruthComparison) -> None:
    truths = iter(draw_truths() * 3)
    proof = comparison.compare(lambda small: next(truths))
    assert all(track.psnr_db.rise > 1 for track in proof.tracks.values())


def test_niqe_and_features_are_measured_where_their_packages_are() -> None:
    try:
        metrics.read_natural_model()
        features.FeatureNetwork()
    except MissingPackage as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(2)
    large = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    comparison = TruthComparison({"clean": [Sample(large, large[::4, ::4].copy(), large)]})
    track = comparison.compare(lambda small: enlarge(small)).tracks["clean"]
    assert track.niqe is not None
    assert track.feature is not None
    assert track.feature.float32 == 0 < track.feature.int8


def test_decibels_of_a_known_error() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    assert decibels(black + 1, black) == pytest.approx(48.13, abs=0.01)
    assert decibels(black, black) == 120
