from pathlib import Path

import numpy as np
import pytest

from upscaled.doctor import golden
from upscaled.doctor.golden import (
    MIN_INVENTED_PSNR_DB,
    MIN_PSNR_DB,
    SOURCES,
    compare,
    find_least_psnr_db,
    read_expected,
    read_source,
)
from upscaled.image.decode import decode_file
from upscaled.image.types import Image
from upscaled.upscale.post_process.steps import is_plausible
from upscaled_models import accuracy
from upscaled_models.accuracy import MAX_PSNR_DB


def grey(level: int, *, alpha: int | None = None) -> Image:
    plane = None if alpha is None else np.full((4, 6), alpha, np.uint8)
    return Image(np.full((4, 6, 3), level, np.uint8), plane)


@pytest.mark.parametrize(
    ("model", "scale"),
    [(f"upscaled-x{scale}{kind}", scale) for scale in (2, 4) for kind in ("", "-faithful")],
)
def test_each_shipped_model_has_its_picture_at_its_scale(model: str, scale: int) -> None:
    source = decode_file(read_source(scale))
    expected = read_expected(model, scale)
    assert expected is not None
    result = decode_file(expected)
    assert result.rgb.shape == (source.height_px * scale, source.width_px * scale, 3)
    assert (result.alpha is None) == (source.alpha is None) == (scale == 4)


@pytest.mark.parametrize("scale", SOURCES)
@pytest.mark.parametrize("model", ["realesrgan-x4plus", "realesrgan-x4plus-anime-6b"])
def test_official_models_have_pictures_of_the_source_that_are_not_each_others(
    model: str, scale: int
) -> None:
    source = decode_file(read_source(scale))
    data = read_expected(model, scale)
    shipped = read_expected(f"upscaled-x{scale}", scale)
    assert data is not None
    assert shipped is not None
    expected, other = decode_file(data), decode_file(shipped)
    assert is_plausible(source.rgb, expected.rgb)
    assert 22 < compare(expected, other) < 36


def test_a_tempered_picture_lies_between_the_two_that_are_mixed() -> None:
    data = [
        read_expected("realesrgan-x4plus", 4, is_tempered=True),
        read_expected("realesrgan-x4plus", 4),
        read_expected("upscaled-x4-faithful", 4),
    ]
    tempered, vivid, faithful = (decode_file(each) for each in data if each is not None)
    apart_db = compare(vivid, faithful)
    assert apart_db < min(compare(tempered, vivid), compare(tempered, faithful))


def test_the_default_model_is_near_a_tempered_picture_and_sharper_than_the_faithful_one() -> None:
    """It was trained on such pictures, whose texture by PSNR alone counts for little."""
    data = [
        read_expected("realesrgan-x4plus", 4, is_tempered=True),
        read_expected("upscaled-x4", 4),
        read_expected("upscaled-x4-faithful", 4),
    ]
    tempered, default, faithful = (decode_file(each).rgb for each in data if each is not None)
    sharp = [
        float(np.abs(np.diff(each.astype(float), axis=1)).mean()) for each in (default, faithful)
    ]
    assert compare(Image(tempered), Image(default)) > 30
    assert sharp[0] > sharp[1]


def test_a_colour_that_nothing_shows_does_not_count() -> None:
    assert compare(grey(0, alpha=0), grey(255, alpha=0)) == MAX_PSNR_DB
    assert compare(grey(0, alpha=1), grey(255, alpha=1)) < 10


def test_networks_that_invent_texture_have_a_wider_tolerance() -> None:
    assert find_least_psnr_db("upscaled-x4") == MIN_PSNR_DB
    assert find_least_psnr_db("realesrgan-x4plus") == MIN_INVENTED_PSNR_DB
    assert MIN_INVENTED_PSNR_DB < MIN_PSNR_DB < accuracy.MIN_PSNR_DB["fast"]


def test_the_page_states_the_tolerance_of_a_result() -> None:
    page = (Path(golden.__file__).parents[1] / "docs" / "commands.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| `golden x2`"))
    assert f"at least {MIN_PSNR_DB:.0f} dB, {MIN_INVENTED_PSNR_DB:.0f} dB" in row


def test_other_models_have_no_golden_result() -> None:
    assert read_expected("realesrgan-x2plus", 2) is None
    assert read_expected("upscaled-x4", 2) is None
    assert read_expected("upscaled-x4", 4, is_tempered=True) is None


def test_pictures_are_compared_transparency_included() -> None:
    assert compare(grey(9), grey(9)) == MAX_PSNR_DB
    assert compare(grey(0), grey(255)) == pytest.approx(0.0)
    assert compare(grey(9, alpha=255), grey(9, alpha=254)) == pytest.approx(54.15, abs=0.01)
    assert compare(grey(9), grey(9, alpha=255)) == 0.0
