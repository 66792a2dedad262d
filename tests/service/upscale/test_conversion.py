from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tests.service.image.samples import picture, save
from upscaled.errors import InvalidParameter
from upscaled.image.decode import decode_file
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.upscale.conversion import OutputOptions, read_options, read_pillow


def test_no_option_is_no_choice() -> None:
    assert read_options({}, is_file=True) == read_options({}, is_file=False) == NO_CHOICE


def test_each_option_is_accepted_at_both_ends_of_its_range() -> None:
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


@pytest.mark.parametrize(("mode", "key"), [("L", 100), ("RGB", (100, 100, 100)), ("P", 3)])
def test_a_transparent_colour_of_a_picture_becomes_alpha(mode: str, key: Any) -> None:
    """As the picture's file gives it: a PNG's tRNS is in `info`, not in the mode."""
    shown = PillowImage.fromarray(np.full((4, 6, 3), 100, np.uint8)).convert(mode)
    shown.putpixel((0, 0), 7)
    opened = PillowImage.open(BytesIO(save(shown, "PNG", transparency=key)))
    assert opened.mode == mode
    image, shape = read_pillow(opened)
    from_file = decode_file(save(shown, "PNG", transparency=key))
    assert image.alpha is not None
    assert from_file.alpha is not None
    assert shape.is_grey == (mode == "L")
    assert np.array_equal(image.alpha, from_file.alpha)
    assert np.array_equal(image.rgb, from_file.rgb)


def test_grey_that_was_multiplied_by_its_alpha_is_divided_again() -> None:
    pixels = PillowImage.fromarray(np.array([[[60, 120], [128, 255]]], np.uint8), "LA")
    image, shape = read_pillow(PillowImage.frombytes("La", (2, 1), pixels.tobytes()))
    assert (shape.is_grey, shape.has_alpha) == (True, True)
    assert image.rgb[0, :, 0].tolist() == [127, 128]


def test_inks_become_srgb_by_their_profile(shared_dir: Path) -> None:
    source = (shared_dir / "images" / "decode" / "cmyk-icc.jpg").read_bytes()
    image, _ = read_pillow(PillowImage.open(BytesIO(source)))
    assert image.icc is None
    assert np.array_equal(image.rgb, decode_file(source).rgb)


@pytest.mark.parametrize(
    "numbers",
    [np.array([[0, 300]], np.int32), np.array([[-1, 5]], np.int32), np.array([[0.5, 1]], "f4")],
)
def test_numbers_that_8_bits_cannot_hold_are_refused(numbers: NDArray[Any]) -> None:
    """Pillow would cut them off: a picture of 16 bits in mode I would be white."""
    with pytest.raises(InvalidParameter, match="convert it to L or I;16 first"):
        read_pillow(PillowImage.fromarray(numbers))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_wider_numbers_that_fit_into_8_bits_are_accepted(kind: type) -> None:
    levels = picture(4, 6)[..., 0]
    image, _ = read_pillow(PillowImage.fromarray(levels.astype(kind)))
    assert np.array_equal(image.rgb[..., 0], levels)
