import pytest

from upscaled_models.families.strips import MIN_CORE_ROWS, STRIP_PX, TAIL_RADIUS_PX, plan_strips


@pytest.mark.parametrize("height", [1, 7, 12, 13, 32, 33, 64, 255, 256, 257, 512, 799])
@pytest.mark.parametrize("width", [1, 16, 127, 128, 384, 512, 4096])
def test_strips_keep_every_row_once_and_see_what_its_result_depends_on(
    height: int, width: int
) -> None:
    rows, strips = plan_strips(height, width)
    kept = [row for strip in strips for row in range(strip.first, strip.last)]
    assert kept == list(range(height))
    for strip in strips:
        assert strip.start >= 0
        assert strip.start + rows <= height
        assert strip.start == 0 or strip.first - strip.start >= TAIL_RADIUS_PX
        end = strip.start + rows
        assert end == height or end - strip.last >= TAIL_RADIUS_PX
    assert rows * width <= STRIP_PX or rows <= MIN_CORE_ROWS + 2 * TAIL_RADIUS_PX


def test_what_fits_is_one_strip() -> None:
    assert len(plan_strips(128, 128)[1]) == 1
    assert len(plan_strips(129, 128)[1]) == 2
