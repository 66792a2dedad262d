"""WebP and AVIF files as decoders read them: pixels, alpha, profile, resolution and credit."""

import numpy as np
import pytest

from tests.service.image.samples import picture, srgb_profile
from upscaled.image.decode import decode_file
from upscaled.image.encode import Encoder
from upscaled.image.types import Credit, Image

FORMATS = ["WEBP", "AVIF"]


def encode(image: Image, format_name: str, quality: int = 90) -> bytes:
    with Encoder(image, format_name, quality=quality) as encoder:
        return encoder.finish()


def decode(data: bytes) -> Image:
    return decode_file(data, {"JPEG", "PNG", "WEBP", "AVIF"})


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("has_alpha", [False, True])
def test_the_pixels_are_close_and_the_alpha_is_exact_enough_to_see_nothing(
    format_name: str, has_alpha: bool
) -> None:
    pixels = picture(130, 171, channels=4)
    alpha = pixels[..., 3].copy() if has_alpha else None
    read = decode(encode(Image(pixels[..., :3].copy(), alpha), format_name))
    error = np.abs(read.rgb.astype(int) - pixels[..., :3])
    assert read.has_alpha == has_alpha
    if read.alpha is not None and alpha is not None:
        assert np.abs(read.alpha.astype(int) - alpha).max() <= 2
        error = error[alpha > 128]
    assert error.mean() < 3


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_higher_quality_makes_a_larger_and_a_truer_file(format_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files = [encode(Image(noise), format_name, quality) for quality in (1, 50, 90, 100)]
    errors = [float(np.abs(decode(each).rgb.astype(int) - noise).mean()) for each in files]
    assert sorted({len(each) for each in files}) == [len(each) for each in files]
    assert sorted(errors, reverse=True) == errors


@pytest.mark.parametrize("format_name", FORMATS)
def test_profile_resolution_and_credit_are_read_back(format_name: str) -> None:
    credit = Credit(artist="Ann Möller", copyright="© 2026")
    image = Image(picture(), icc=srgb_profile(), dpi=(300.0, 150.0), credit=credit)
    read = decode(encode(image, format_name))
    assert (read.icc, read.dpi, read.credit) == (image.icc, image.dpi, credit)


@pytest.mark.parametrize("format_name", FORMATS)
def test_without_them_no_metadata_are_written(format_name: str) -> None:
    data = encode(Image(picture()), format_name)
    read = decode(data)
    assert (read.icc, read.dpi, read.credit) == (None, None, None)
    assert b"Exif" not in data
    assert b"EXIF" not in data


@pytest.mark.parametrize("format_name", [*FORMATS, "JPEG"])
def test_16_bits_are_refused_by_all_but_png(format_name: str) -> None:
    with pytest.raises(ValueError, match="does not hold 16 bits"):
        Encoder(Image(picture().astype(np.uint16)), format_name, quality=90)
