"""Format, size and depth of a result are decided from its source's header or pixels."""

import numpy as np
import pytest

from upscaled.image.output import OutputSpec, decide_output
from upscaled.image.types import Header, Image


def decide(
    width: int,
    height: int,
    scale: int,
    *,
    has_alpha: bool = False,
    is_deep: bool = False,
    keeps_depth: bool = False,
) -> OutputSpec:
    header = Header("PNG", width, height, has_alpha, is_deep)
    kind = np.uint16 if is_deep else np.uint8
    alpha = np.zeros((height, width), kind) if has_alpha else None
    image = Image(np.zeros((height, width, 3), kind), alpha)
    by_header, by_pixels = (
        decide_output(source, scale, keeps_depth=keeps_depth, max_side_px=200)
        for source in (header, image)
    )
    assert by_header == by_pixels
    return by_header


@pytest.mark.parametrize(
    ("has_alpha", "is_deep", "keeps_depth", "suffix", "stays_deep"),
    [
        (False, False, False, "jpg", False),
        (False, False, True, "jpg", False),
        (True, False, False, "png", False),
        (False, True, False, "jpg", False),
        (False, True, True, "png", True),
        (True, True, False, "png", True),
    ],
)
def test_alpha_and_kept_depth_make_a_png(
    has_alpha: bool, is_deep: bool, keeps_depth: bool, suffix: str, stays_deep: bool
) -> None:
    output = decide(30, 20, 2, has_alpha=has_alpha, is_deep=is_deep, keeps_depth=keeps_depth)
    assert (output.suffix, output.is_deep) == (suffix, stays_deep)
    assert output.media_type == {"jpg": "image/jpeg", "png": "image/png"}[suffix]
    assert output.canvas_px == 60 * 40 * (2 if stays_deep else 1)


@pytest.mark.parametrize(
    ("width", "height", "scale", "expected"),
    [
        (50, 30, 4, (200, 120)),
        (51, 30, 4, (200, 118)),
        (30, 200, 2, (30, 200)),
        (1, 300, 2, (1, 200)),
    ],
)
def test_a_longer_result_is_scaled_down_and_its_canvas_is_not(
    width: int, height: int, scale: int, expected: tuple[int, int]
) -> None:
    output = decide(width, height, scale)
    assert (output.width_px, output.height_px) == expected
    assert output.canvas_px == width * height * scale**2
