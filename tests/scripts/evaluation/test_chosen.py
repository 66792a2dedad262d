"""Corrected colours and tempering are measured as the product does them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.evaluation.chosen import correct_colours, temper_by
from scripts.evaluation.upscalers import KERNELS, kernel_upscaler, run
from upscaled_models.quantise.tracks import make_small

Pixels = NDArray[np.uint8]

BICUBIC = kernel_upscaler(KERNELS["bicubic"], 2)


def picture() -> Pixels:
    noise = np.random.default_rng(3).integers(0, 256, (32, 40, 3)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2) * 3 - 255).clip(0, 255).astype(np.uint8)


def shifted(small: Pixels) -> Pixels:
    return np.asarray(np.clip(BICUBIC(small) + np.array([20, 0, -20]), 0, 255), np.uint8)


def test_colour_correction_removes_a_shift_of_colour() -> None:
    small = picture()
    before, after = (
        np.abs(each(small).astype(int) - BICUBIC(small)).mean()
        for each in (shifted, correct_colours(shifted))
    )
    assert after < before / 4


def test_correction_keeps_a_grey_picture_grey() -> None:
    grey = np.repeat(picture()[..., :1], 3, axis=2)
    result = correct_colours(shifted)(grey)
    assert (result == result[..., :1]).all()


def test_tempering_keeps_the_faithful_result_where_the_two_differ_much() -> None:
    def wrong(small: Pixels) -> Pixels:
        result = BICUBIC(small).copy()
        result[:, :30] = 255 - result[:, :30]
        return result

    small = make_small("clean", picture().repeat(2, axis=0).repeat(2, axis=1), 2, "noise")
    tempered = run(temper_by(wrong, BICUBIC, 2), small).astype(int)
    faithful = BICUBIC(small.pixels)
    assert (
        np.abs(tempered - faithful).mean()
        < np.abs(wrong(small.pixels).astype(int) - faithful).mean() / 5
    )
    assert np.array_equal(tempered[:, 48:], faithful[:, 48:])
