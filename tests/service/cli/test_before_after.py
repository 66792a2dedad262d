"""The sheet: which parts it shows, and of what."""

import numpy as np
from numpy.typing import NDArray

from upscaled.cli.before_after import CROP_PX, ENLARGED, GAP_PX, LINE_PX, draw_sheet

NAMES = ("bicubic", "mine")


def picture() -> NDArray[np.uint8]:
    """900x700: noise in the bottom right corner, a ramp in the bottom left one, lines above."""
    rows, columns = np.mgrid[0:700, 0:900]
    pixels = np.stack([columns // 8 % 2 * 40 + 60, rows // 9, columns // 9], axis=-1)
    pixels = pixels.astype(np.uint8)
    pixels[420:, :400] = 77
    noise = np.random.default_rng(1).integers(0, 256, (280, 400, 3), dtype=np.uint8)
    pixels[420:, 500:] = noise
    return pixels


def parts_of(sheet: NDArray[np.uint8], heights: list[int]) -> list[list[NDArray[np.uint8]]]:
    """The pictures of each row, left and right."""
    width, top, rows = CROP_PX[0] * ENLARGED, LINE_PX, []
    for height in heights:
        row = sheet[top + LINE_PX : top + LINE_PX + height]
        rows.append([row[:, :width], row[:, width + GAP_PX :]])
        top += LINE_PX + height + GAP_PX
    assert top == len(sheet)
    return rows


def test_the_busiest_and_the_smoothest_part_are_shown_twice_as_large_beside_the_whole() -> None:
    after = picture()
    before = after // 2
    sheet = np.asarray(draw_sheet(before, after, "title", NAMES))
    detail_px = CROP_PX[1] * ENLARGED
    _, busiest, smoothest = parts_of(sheet, [round(700 * 640 / 900), detail_px, detail_px])
    assert busiest[1].std() > 70
    assert np.array_equal(busiest[1][::2, ::2], busiest[1][1::2, 1::2])
    assert np.array_equal(busiest[0], busiest[1] // 2)
    assert (smoothest[1] == 77).all()
    assert (smoothest[0] == 38).all()


def test_a_picture_smaller_than_a_detail_is_shown_as_it_is() -> None:
    tiny = np.full((5, 7, 3), 200, np.uint8)
    sheet = np.asarray(draw_sheet(tiny, tiny, "title", NAMES))
    whole, busiest, _ = parts_of(sheet, [5, 10, 10])
    assert (whole[0][:, :7] == 200).all()
    assert (busiest[1][:, :14] == 200).all()
    assert (busiest[1][:, 14:] == 255).all()


def test_one_row_of_pixels_is_a_sheet_too() -> None:
    line = np.zeros((1, 2000, 3), np.uint8)
    assert draw_sheet(line, line, "title", NAMES).height > 3 * LINE_PX
