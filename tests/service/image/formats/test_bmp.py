"""A BMP of 32 bits whose alpha is 0 everywhere is opaque."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.image.samples import picture, save
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file
from upscaled.image.header import read_header

MASKS = {  # where each channel stands in a pixel's four bytes
    "BGRA": (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    "RGBA": (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    "ABGR": (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    "BGAR": (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
}


def bmp(pixels: NDArray[np.uint8], order: str, *, top_first: bool = False) -> bytes:
    """A BMP of the fourth version: 32 bits a pixel, its channels where masks say."""
    height, width = pixels.shape[:2]
    rows = pixels if top_first else pixels[::-1]
    data = rows[..., ["RGBA".index(channel) for channel in order]].tobytes()
    start = 14 + 108
    head = struct.pack("<2sIII", b"BM", start + len(data), 0, start)
    sizes = (108, width, -height if top_first else height, 1, 32, 3, len(data), 2835, 2835, 0, 0)
    info = struct.pack("<IiiHHIIiiII", *sizes) + struct.pack("<4I", *MASKS[order]) + b" niW"
    return head + info + bytes(108 - len(info)) + data


@pytest.mark.parametrize("top_first", [False, True])
@pytest.mark.parametrize("order", sorted(MASKS))
def test_alpha_that_is_0_everywhere_is_none(order: str, top_first: bool) -> None:
    pixels = np.dstack([picture(64, 70), np.zeros((64, 70), np.uint8)])
    source = bmp(pixels, order, top_first=top_first)

    assert not read_header(source, {"BMP"}).has_alpha
    image = decode_file(source, {"BMP"})

    assert image.alpha is None
    assert np.array_equal(image.rgb, pixels[..., :3])


@pytest.mark.parametrize("place", [(0, 0), (63, 69), (30, 7)])
@pytest.mark.parametrize("order", sorted(MASKS))
def test_a_single_visible_pixel_makes_it_alpha(order: str, place: tuple[int, int]) -> None:
    pixels = np.dstack([picture(64, 70), np.zeros((64, 70), np.uint8)])
    pixels[(*place, 3)] = 1
    source = bmp(pixels, order)

    image = decode_file(source, {"BMP"})

    assert read_header(source, {"BMP"}).has_alpha
    assert image.alpha is not None
    assert np.array_equal(image.alpha, pixels[..., 3])
    assert np.array_equal(image.rgb, pixels[..., :3])


def test_a_cut_file_with_empty_alpha_is_refused() -> None:
    source = bmp(np.zeros((64, 70, 4), np.uint8), "BGRA")
    for length in range(60, len(source), 997):
        with pytest.raises(MalformedImage):
            decode_file(source[:length], {"BMP"})


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_other_formats_mean_what_they_say(kind: str) -> None:
    pixels = np.dstack([picture(64, 70), np.zeros((64, 70), np.uint8)])
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    source = save(pixels, kind, **options)
    assert read_header(source, {kind}).has_alpha
    assert decode_file(source, {kind}).alpha is not None


def test_the_file_of_the_shared_cases_is_opaque(shared_dir: Path) -> None:
    source = (shared_dir / "cases" / "bmp-empty-alpha" / "bmp_v4_alpha0.bmp").read_bytes()
    assert decode_file(source, {"BMP"}).alpha is None
