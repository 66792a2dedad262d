"""Upscalers of whole pictures, whatever the picture's sides."""

import numpy as np
import pytest
import torch

from scripts.evaluation.upscalers import network_upscaler
from upscaled_models.networks.plain import PlainNet


@pytest.mark.parametrize("size", [(1, 1), (7, 8), (9, 5)])
def test_a_folding_network_accepts_a_picture_of_odd_sides(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    upscale = network_upscaler(PlainNet(4, 0, 2, fold=2).eval(), 2, 2)
    height, width = size
    even = np.random.default_rng(1).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    even[height:] = even[height - 1]
    even[:, width:] = even[:, width - 1 : width]

    got = upscale(np.ascontiguousarray(even[:height, :width]))

    padded = even[: height + height % 2, : width + width % 2]
    assert got.shape == (2 * height, 2 * width, 3)
    assert np.array_equal(got, upscale(padded)[: 2 * height, : 2 * width])
