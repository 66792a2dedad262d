"""Format, size and depth of a result are decided from its source's header or pixels."""

import numpy as np
import pytest

from upscaled.errors import InvalidParameter, ResolutionTooHigh
from upscaled.image.formats.table import WEBP
from upscaled.image.output import NO_CHOICE, OutputChoice, OutputSpec, decide_output
from upscaled.image.types import Header, Image, MetadataPlan


def decide(
    width: int,
    height: int,
    scale: int,
    *,
    has_alpha: bool = False,
    is_deep: bool = False,
    keeps_depth: bool = False,
    choice: OutputChoice = NO_CHOICE,
) -> OutputSpec:
    header = Header("PNG", width, height, has_alpha, is_deep)
    kind = np.uint16 if is_deep else np.uint8
    alpha = np.zeros((height, width), kind) if has_alpha else None
    image = Image(np.zeros((height, width, 3), kind), alpha)
    by_header, by_pixels = (
        decide_output(source, scale, keeps_depth=keeps_depth, max_side_px=200, choice=choice)
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


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize(
    ("chosen", "suffix", "media_type"),
    [
        ("jpeg", "jpg", "image/jpeg"),
        ("png", "png", "image/png"),
        ("lossless", "png", "image/png"),
        ("webp", "webp", "image/webp"),
        ("avif", "avif", "image/avif"),
    ],
)
def test_a_chosen_format_is_that_of_the_result(
    chosen: str, suffix: str, media_type: str, has_alpha: bool
) -> None:
    output = decide(30, 20, 2, has_alpha=has_alpha, choice=OutputChoice(chosen))
    assert (output.suffix, output.media_type) == (suffix, media_type)


@pytest.mark.parametrize(
    ("chosen", "has_alpha", "keeps_depth", "stays_deep"),
    [
        ("lossless", False, False, True),
        ("lossless", True, False, True),
        ("png", False, False, False),
        ("png", False, True, True),
        ("png", True, False, True),
        ("jpeg", True, True, False),
        ("webp", True, True, False),
        ("avif", True, True, False),
    ],
)
def test_lossless_keeps_16_bits_and_only_a_png_can(
    chosen: str, has_alpha: bool, keeps_depth: bool, stays_deep: bool
) -> None:
    choice = OutputChoice(chosen)
    output = decide(
        30, 20, 2, has_alpha=has_alpha, is_deep=True, keeps_depth=keeps_depth, choice=choice
    )
    assert output.is_deep == stays_deep
    assert output.canvas_px == 60 * 40 * (2 if stays_deep else 1)


def test_a_webp_longer_than_its_format_holds_is_refused() -> None:
    for side_px, is_refused in ((WEBP.max_side_px, False), (WEBP.max_side_px + 1, True)):
        header = Header("PNG", 5000, 64, has_alpha=False)
        for form in ("webp", "avif"):
            try:
                decide_output(
                    header, 4, keeps_depth=False, max_side_px=side_px, choice=OutputChoice(form)
                )
            except ResolutionTooHigh:
                assert (form, is_refused) == ("webp", True)
            else:
                assert form == "avif" or not is_refused


@pytest.mark.parametrize(
    ("form", "size_bytes"), [("jpeg", 0), ("png", 0), ("webp", 38 * 2400), ("avif", 46 * 2400)]
)
def test_encoders_that_begin_with_the_last_pixel_need_memory_of_their_own(
    form: str, size_bytes: int
) -> None:
    assert decide(30, 20, 2, choice=OutputChoice(form)).encoder_bytes == size_bytes


def test_a_choice_is_made_again_of_its_changes() -> None:
    assert NO_CHOICE.changes() == {}
    choice = OutputChoice("webp", 80)
    assert choice.changes() == {"format": "webp", "quality": 80}
    assert OutputChoice(**choice.changes()) == choice  # type: ignore[arg-type]
    keeping = OutputChoice(metadata="keep")
    assert keeping.changes() == {"metadata": "keep"}


@pytest.mark.parametrize(
    ("metadata", "plan"),
    [("", None), ("keep", MetadataPlan(False, 60, 40)), ("keep-all", MetadataPlan(True, 60, 40))],
)
def test_the_plan_of_kept_metadata_has_the_size_of_the_result(
    metadata: str, plan: MetadataPlan | None
) -> None:
    assert decide(30, 20, 2, choice=OutputChoice(metadata=metadata)).metadata_plan == plan


@pytest.mark.parametrize("choice", [{"format": "gif"}, {"format": "JPEG"}, {"metadata": "all"}])
def test_names_that_cannot_be_chosen_are_refused(choice: dict[str, str]) -> None:
    (name,) = choice
    with pytest.raises(ValueError, match=f"{name} .* must be one of"):
        OutputChoice(**choice)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (OutputChoice(max_side_px=160), (160, 120)),
        (OutputChoice(max_side_px=100), (100, 75)),
        (OutputChoice(max_side_px=1), (1, 1)),
        (OutputChoice(max_side_px=5000), (160, 120)),
        (OutputChoice(width_px=160), (160, 120)),
        (OutputChoice(width_px=81), (81, 61)),
        (OutputChoice(width_px=20), (20, 15)),
        (OutputChoice(height_px=99), (132, 99)),
        (OutputChoice(width_px=100, height_px=20), (27, 20)),
        (OutputChoice(width_px=100, height_px=100), (100, 75)),
        (OutputChoice(width_px=100, max_side_px=50), (50, 38)),
    ],
)
def test_a_chosen_size_is_reached_from_the_result_and_keeps_its_shape(
    choice: OutputChoice, expected: tuple[int, int]
) -> None:
    output = decide(40, 30, 4, choice=choice)
    assert (output.width_px, output.height_px) == expected
    assert output.is_size_chosen == (expected != (160, 120))


@pytest.mark.parametrize(
    "choice", [OutputChoice(width_px=161), OutputChoice(height_px=121), OutputChoice(height_px=999)]
)
def test_a_width_or_height_beyond_the_scale_is_refused_with_what_there_is(
    choice: OutputChoice,
) -> None:
    with pytest.raises(InvalidParameter, match="The result at scale 4 is 160x120 pixels"):
        decide(40, 30, 4, choice=choice)


def test_a_size_that_the_limit_makes_is_none_that_was_chosen() -> None:
    assert not decide(51, 30, 4).is_size_chosen
    assert decide(51, 30, 4, choice=OutputChoice(max_side_px=199)).is_size_chosen
    with pytest.raises(InvalidParameter, match="is 200x117 pixels"):
        decide(51, 30, 4, choice=OutputChoice(width_px=201))
