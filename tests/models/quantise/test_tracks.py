"""Tracks make files as people send them, and their pixels are the files'."""

import numpy as np
import pytest
from numpy.typing import NDArray

from upscaled_models.quantise.tracks import FILES, decode, make_clean, make_small

Pixels = NDArray[np.uint8]

MAGIC = {"clean": b"\x89PNG", "jpeg": b"\xff\xd8", "jpeg75": b"\xff\xd8", "camera": b"\xff\xd8"}


@pytest.mark.parametrize("track", FILES)
def test_a_track_makes_a_file_of_its_format_and_the_pixels_in_it(
    texture: Pixels, track: str
) -> None:
    small = make_small(track, texture, 4, "texture")
    assert small.file.startswith(MAGIC.get(track, b"RIFF"))
    assert small.pixels.shape == (56, 80, 3)
    assert np.array_equal(small.pixels, decode(small.file))


def test_the_clean_track_loses_nothing_and_jpeg_50_loses_more_than_75(texture: Pixels) -> None:
    clean = make_clean(texture, 4).astype(int)
    assert np.array_equal(make_small("clean", texture, 4, "texture").pixels, clean)
    errors = [
        np.abs(make_small(track, texture, 4, "texture").pixels - clean).mean()
        for track in ("jpeg75", "jpeg")
    ]
    assert 0 < errors[0] < errors[1]
