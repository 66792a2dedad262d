import numpy as np
import pytest

from upscaled.image.types import Image
from upscaled.upscale.job import fit, scale_to_run


def flat(height: int, width: int, level: int = 77) -> Image:
    return Image(
        rgb=np.full((height, width, 3), level, np.uint8),
        alpha=np.full((height, width), level, np.uint8),
        icc=b"profile",
    )


@pytest.mark.parametrize(
    ("longest_px", "scale", "run_at"),
    [(1500, 4, 4), (1501, 4, 4), (2999, 4, 4), (3000, 4, 2), (6000, 4, 2), (6000, 2, 2)],
)
def test_no_more_is_computed_than_the_largest_result_needs(
    longest_px: int, scale: int, run_at: int
) -> None:
    assert scale_to_run(longest_px, scale, 6000) == run_at


@pytest.mark.parametrize(
    ("size", "expected"),
    [((120, 80), (60, 40)), ((80, 120), (40, 60)), ((61, 61), (60, 60)), ((1, 600), (1, 60))],
)
def test_the_longer_side_becomes_the_largest_allowed(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    fitted = fit(flat(*size), 60)

    assert fitted.rgb.shape == (*expected, 3)
    assert fitted.alpha is not None
    assert fitted.alpha.shape == expected
    assert fitted.icc == b"profile"


def test_flat_areas_keep_their_level() -> None:
    for level in (0, 1, 127, 254, 255):
        fitted = fit(flat(97, 83, level), 60)
        assert (fitted.rgb == level).all()
        assert fitted.alpha is not None
        assert (fitted.alpha == level).all()


def test_a_checkerboard_becomes_its_mean_not_one_of_its_fields() -> None:
    rows, columns = np.mgrid[0:120, 0:120]
    board = ((rows + columns) % 2 * 200).astype(np.uint8)[..., None].repeat(3, axis=2)

    assert (fit(Image(board), 60).rgb == 100).all()
