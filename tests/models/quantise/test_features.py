"""The feature networks are the published ones, and their distance grows with the difference."""

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from upscaled_models.quantise.features import FeatureNetwork, feature_distance
from upscaled_models.quantise.installed import MissingPackage

Pixels = NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("one_thread")


def open_network(name: str) -> FeatureNetwork:
    try:
        return FeatureNetwork(name)
    except MissingPackage as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return open_network("lite1")


def distance(network: FeatureNetwork, one: Pixels, other: Pixels) -> float:
    return feature_distance(network.features(one), network.features(other))


@pytest.mark.parametrize(("name", "expected"), [("lite0", 0.673839), ("lite1", 0.597219)])
def test_the_distance_equals_that_of_the_published_network(
    texture: Pixels, name: str, expected: float
) -> None:
    """Expected: efficientnet-lite-pytorch 0.1.0 with the same weights; every feature was equal."""
    paler = np.clip(np.roll(texture, 2, axis=1).astype(int) * 3 // 4 + 20, 0, 255).astype(np.uint8)
    assert distance(open_network(name), texture, paler) == pytest.approx(expected, abs=1e-4)


def test_a_picture_is_at_no_distance_from_itself_and_further_with_blur(
    texture: Pixels, network: FeatureNetwork
) -> None:
    soft, softer = (
        np.asarray(cv2.GaussianBlur(texture, (0, 0), sigma_px), np.uint8) for sigma_px in (0.6, 1.5)
    )
    assert distance(network, texture, texture) == 0
    assert 0 < distance(network, soft, texture) < distance(network, softer, texture)


def test_features_have_length_1_at_every_pixel_of_an_odd_size_too(
    texture: Pixels, network: FeatureNetwork
) -> None:
    features = network.features(texture[:99, :131])
    assert [tuple(stage.shape[2:]) for stage in features[:3]] == [(49, 65), (49, 65), (24, 32)]
    for stage in features:
        lengths = stage.square().sum(1).sqrt()
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3)
