"""Averages weigh by area; in light, patterns keep their brightness and flat levels their level."""

import numpy as np
import pytest

from tests.service.image.samples import picture
from upscaled.upscale.image_work import average_down, average_light


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_flat_level_is_averaged_to_itself(kind: type[np.unsignedinteger]) -> None:
    levels = np.linspace(0, np.iinfo(kind).max, 256).round().astype(kind)
    rgb = np.repeat(np.repeat(levels[:, None], 6, axis=1).repeat(6, axis=0)[..., None], 3, axis=2)
    small = average_light(rgb, (2, 512))
    assert small.dtype == kind
    error = small[::2, 0, 1].astype(int) - levels
    assert np.abs(error).max() <= (0 if kind is np.uint8 else 1)


def test_black_and_white_in_turn_are_half_of_the_light_and_not_of_the_level() -> None:
    board = np.zeros((40, 60, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    assert set(np.unique(average_light(board, (30, 20)))) == {188}
    assert set(np.unique(average_down(board, (30, 20)))) == {128}


def test_channels_are_not_mixed_and_parts_of_a_pixel_weigh_as_their_area() -> None:
    rgb = np.zeros((3, 3, 3), np.uint8)
    rgb[:, :2, 0], rgb[:, 2, 2] = 255, 255
    small = average_light(rgb, (2, 2))
    assert (small[..., 1] == 0).all()
    assert (small[:, 0] == (255, 0, 0)).all()
    assert np.abs(small[:, 1].astype(int) - (156, 0, 213)).max() <= 1  # a third, two thirds


def test_a_smooth_picture_is_nearly_the_same_either_way() -> None:
    rgb = picture(240, 320)
    difference = average_light(rgb, (80, 60)).astype(int) - average_down(rgb, (80, 60))
    assert np.abs(difference).mean() < 1.5
