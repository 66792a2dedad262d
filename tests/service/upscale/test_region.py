import numpy as np
import pytest

from upscaled.upscale.region import Region


def test_a_region_reads_what_it_wrote() -> None:
    canvas = np.zeros((10, 12, 3), np.uint8)
    region = Region(2, 3, 4, 5)
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)

    region.write(canvas, pixels)

    assert np.array_equal(region.read(canvas), pixels)
    assert canvas.astype(int).sum() == pixels.astype(int).sum()


def test_scaled_regions_of_a_partition_are_a_partition() -> None:
    left, right = Region(0, 0, 7, 3), Region(0, 3, 7, 4)

    assert left.scaled(4).right == right.scaled(4).left
    assert right.scaled(4) == Region(0, 12, 28, 16)


def test_within_counts_from_the_outer_corner() -> None:
    assert Region(10, 20, 3, 4).within(Region(8, 15, 50, 50)) == Region(2, 5, 3, 4)


@pytest.mark.parametrize("shape", [(3, 5, 3), (4, 1, 3), (1, 1, 3)])
def test_pixels_of_another_size_are_refused_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fill"):
        Region(0, 0, 4, 5).write(np.zeros((9, 9, 3), np.uint8), np.zeros(shape, np.uint8))
