"""Rectangles of an image."""

import numpy as np

from upscaled.upscale.region import Region


def test_a_region_grows_as_far_as_its_limit() -> None:
    limit = Region(0, 0, 20, 30)
    assert Region(5, 6, 4, 4).grown(3, limit) == Region(2, 3, 10, 10)
    assert Region(0, 0, 20, 30).grown(3, limit) == limit


def test_padding_mirrors_without_repeating_the_border() -> None:
    pixels = np.arange(4, dtype=np.uint8)[None, :, None].repeat(3, axis=2)

    assert Region(0, 0, 1, 7).read_padded(pixels)[0, :, 0].tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert Region(0, 0, 1, 8).read_padded(pixels)[0, :, 0].tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
