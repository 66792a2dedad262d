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
from upscaled.upscale.conversion import read_pillow


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
