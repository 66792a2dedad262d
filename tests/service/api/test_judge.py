import pytest

from upscaled.api.judge import judge_size
from upscaled.config import load_settings
from upscaled.errors import InvalidParameter, ResolutionTooHigh
from upscaled.image.types import ImageInfo

SETTINGS = load_settings({})


def judge(width_px: int, height_px: int, scale: int) -> None:
    judge_size(ImageInfo("PNG", width_px, height_px, False), scale, SETTINGS)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(64, 64, 2), (64, 64, 4), (3000, 3000, 2), (1500, 1500, 4), (64, 3000, 2), (1500, 64, 4)],
)
def test_sizes_within_the_limits_pass(width_px: int, height_px: int, scale: int) -> None:
    judge(width_px, height_px, scale)


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (0, 0), (63, 3001), (9000, 1)])
def test_a_side_too_short_comes_first(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidParameter, match="64x64"):
        judge(*size, 2)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(3001, 64, 2), (64, 3001, 2), (1501, 64, 4), (64, 1501, 4), (10**9, 10**9, 2)],
)
def test_a_side_too_long_is_refused(width_px: int, height_px: int, scale: int) -> None:
    with pytest.raises(ResolutionTooHigh):
        judge(width_px, height_px, scale)
