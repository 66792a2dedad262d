"""Files of others; skipped where the test data is not present."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.service.image.samples import srgb_curve
from upscaled.errors import MalformedImage, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.table import read_header, sniff

_GAMMA_1 = b"gAMA\x00\x01\x86\xa0"
"""Linear light, which is what every picture of the PNG suite says."""

NOT_ENABLED = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".heic": "HEIC",
    ".ico": "ICO",
    ".jp2": "JPEG2000",
    ".ppm": "PPM",
    ".qoi": "QOI",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
# Decoded differently by OpenCV on purpose: it ignores orientation, ICC and all but its own CMYK.
NOT_COMPARED = {"apng_delay.png", "apng_mode_16bit.png", "apng_mode_palette_alpha.png"}


def all_files(shared_dir: Path) -> list[Path]:
    folders = (shared_dir / "images" / name for name in ("decode", "corrupt"))
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def test_the_refusal_names_the_format(shared_dir: Path) -> None:
    for path in all_files(shared_dir):
        if path.suffix.lower() in NOT_ENABLED and sniff(path.read_bytes()):
            with pytest.raises(UnsupportedImageFormat) as refusal:
                read_header(path.read_bytes())
            kind = NOT_ENABLED[path.suffix.lower()]
            assert refusal.value.public_text == f"Unsupported image format: {kind}", path


def test_png_pixels_equal_opencvs_to_the_level(shared_dir: Path) -> None:
    """An independent reader: libpng, which also gives 16 bits and alpha."""
    compared = 0
    for path in all_files(shared_dir):
        if path.suffix != ".png" or path.name in NOT_COMPARED:
            continue
        try:
            image = decode_file(path.read_bytes())
        except MalformedImage:
            continue
        other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if other is None or other.shape[:2] != image.rgb.shape[:2]:
            continue
        assert other.dtype == image.rgb.dtype, path
        if other.ndim == 2:
            other = other[..., None].repeat(3, axis=2)
            if _GAMMA_1 in path.read_bytes():  # grey, and so converted
                peak = np.iinfo(image.rgb.dtype).max
                assert np.abs(image.rgb - srgb_curve(other / peak) * peak).max() <= 1.01, path
                compared += 1
                continue
        assert np.array_equal(image.rgb, other[..., 2::-1]), path
        if other.shape[2] == 4:
            assert image.alpha is not None, path
            assert np.array_equal(image.alpha, other[..., 3]), path
        compared += 1
    assert compared > 40
