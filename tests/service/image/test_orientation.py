import numpy as np
import pytest

from tests.service.image.samples import exif_with_orientation, picture, stored_for
from upscaled.image.metadata import Exif, swaps_sides
from upscaled.image.pixels import turn_upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_undoes_what_the_camera_stored(orientation: int) -> None:
    upright = picture(5, 7)

    stored = stored_for(upright, orientation)

    assert np.array_equal(turn_upright(stored, orientation), upright)
    assert swaps_sides(orientation) == (stored.shape[0] != upright.shape[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tag_is_read_in_both_byte_orders_with_and_without_prefix(
    orientation: int, order: str
) -> None:
    exif = exif_with_orientation(orientation, order)

    assert Exif(exif).orientation == orientation
    assert Exif(exif.removeprefix(b"Exif\x00\x00")).orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_senseless_value_is_upright(orientation: int) -> None:
    assert Exif(exif_with_orientation(orientation)).orientation == 1


def test_a_tag_of_another_kind_is_upright() -> None:
    assert Exif(exif_with_orientation(6, kind=2)).orientation == 1


def test_no_broken_block_raises() -> None:
    whole = exif_with_orientation(6)
    rng = np.random.default_rng(0)
    for length in range(len(whole)):
        assert Exif(whole[:length]).orientation in (1, 6)
    for _ in range(2000):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] = rng.integers(256)
        broken[rng.integers(len(broken))] = rng.integers(256)
        assert 1 <= Exif(bytes(broken)).orientation <= 8
    assert Exif(b"II*\x00\xff\xff\xff\xff" + bytes(20)).orientation == 1
