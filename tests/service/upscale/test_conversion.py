import pytest

from upscaled.errors import InvalidParameter
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.upscale.conversion import OutputOptions, read_options


def test_no_option_is_no_choice() -> None:
    assert read_options({}, is_file=True) == read_options({}, is_file=False) == NO_CHOICE


def test_each_option_is_taken_at_both_ends_of_its_range() -> None:
    least: OutputOptions = {"quality": 1, "max_side_px": 1, "width_px": 1, "height_px": 1}
    assert read_options(least, is_file=True) == OutputChoice("", 1, 1, 1, 1)
    most: OutputOptions = {
        "format": "avif", "quality": 100, "max_side_px": 20_000, "width_px": 20_000,
        "height_px": 20_000, "metadata": "keep-all",
    }  # fmt: skip
    assert read_options(most, is_file=True) == OutputChoice(
        "avif", 100, 20_000, 20_000, 20_000, "keep-all"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quality": 0}, "quality must be a whole number from 1 to 100"),
        ({"quality": 101}, "quality must be a whole number from 1 to 100"),
        ({"width_px": 0}, "width_px must be a whole number from 1 to 20000"),
        ({"height_px": 20_001}, "height_px must be a whole number from 1 to 20000"),
        ({"max_side_px": 9.5}, "max_side_px must be a whole number from 1 to 20000"),
        ({"format": "gif"}, "format 'gif': must be one of jpeg, png, webp, avif, lossless"),
        ({"metadata": "all"}, "metadata 'all': must be one of keep, keep-all"),
        ({"format": "png", "quality": 90}, "quality: png has no quality"),
    ],
)
def test_a_value_that_cannot_be_is_refused(options: OutputOptions, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        read_options(options, is_file=True)


@pytest.mark.parametrize("options", [{"format": "webp"}, {"quality": 90}, {"metadata": "keep"}])
def test_pixels_have_no_options_of_a_file(options: OutputOptions) -> None:
    with pytest.raises(InvalidParameter, match="format, quality, metadata are those of a file"):
        read_options(options, is_file=False)
