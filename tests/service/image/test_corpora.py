"""Files others made, each with its expected outcome; skipped where the test data is not present."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from upscaled.errors import MalformedImage, ServiceError, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.header import read_header

LONGEST_REFUSAL_S = 1.0
_GAMMA_1 = b"gAMA\x00\x01\x86\xa0"
"""Linear light, which is what every picture of the PNG suite says."""

# Every file that is not decoded, by the reason. All others of the folders are.
BROKEN = {
    "BlueSquare_truncated.jpg",
    "broken.png",
    "broken_data_stream.png",
    "github_15.heic",  # these three hold nothing but random bytes
    "github_46_2.heic",
    "github_47.heic",
    "libpng_bad_iCCP.png",
    "libpng_badcrc.png",
    "libpng_huge_bKGD_chunk.png",
    "libpng_huge_cHRM_chunk.png",
    "libpng_huge_eXIf_chunk.png",
    "libpng_huge_gAMA_chunk.png",
    "libpng_huge_iTXt_chunk.png",
    "libpng_huge_juNK_unsafe_to_copy.png",
    "libpng_huge_juNk_safe_to_copy.png",
    "libpng_huge_pCAL_chunk.png",
    "libpng_huge_sPLT_chunk.png",
    "libpng_huge_sTER_chunk.png",
    "libpng_huge_tEXt_chunk.png",
    "libpng_huge_tIME_chunk.png",
    "truncated.jpg",
    "truncated_image.png",
}
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


def expected_error(path: Path) -> type[ServiceError] | None:
    if path.name in BROKEN:
        return MalformedImage
    return UnsupportedImageFormat if path.suffix.lower() in NOT_ENABLED else None


def test_every_file_has_the_outcome_of_the_table_within_a_second(shared_dir: Path) -> None:
    files = all_files(shared_dir)
    assert len(files) > 150
    for path in files:
        source = path.read_bytes()
        expected = expected_error(path)
        started = time.perf_counter()
        if expected is None:
            image = decode_file(source)
            info = read_header(source)
            assert (image.width_px, image.height_px) == (info.width_px, info.height_px), path
            assert (image.alpha is not None) == info.has_alpha, path
        else:
            with pytest.raises(expected):
                decode_file(source)
            assert time.perf_counter() - started < LONGEST_REFUSAL_S, path


def test_the_refusal_names_the_format(shared_dir: Path) -> None:
    for path in all_files(shared_dir):
        if expected_error(path) is UnsupportedImageFormat:
            with pytest.raises(UnsupportedImageFormat) as refusal:
                read_header(path.read_bytes())
            assert refusal.value.detail == NOT_ENABLED[path.suffix.lower()], path


def test_png_pixels_equal_opencvs_to_the_level(shared_dir: Path) -> None:
    """An independent reader: libpng, which also gives 16 bits and alpha."""
    compared = 0
    for path in all_files(shared_dir):
        if path.suffix != ".png" or expected_error(path) or path.name in NOT_COMPARED:
            continue
        image = decode_file(path.read_bytes())
        other = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if other is None or other.shape[:2] != image.rgb.shape[:2]:
            continue
        assert other.dtype == image.rgb.dtype, path
        if other.ndim == 2:
            other = other[..., None].repeat(3, axis=2)
            if _GAMMA_1 in path.read_bytes():  # grey, and so converted
                peak = np.iinfo(image.rgb.dtype).max
                light = other / peak
                curved = np.where(
                    light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
                )
                assert np.abs(image.rgb - curved * peak).max() <= 1.01, path
                compared += 1
                continue
        assert np.array_equal(image.rgb, other[..., 2::-1]), path
        if other.shape[2] == 4:
            assert image.alpha is not None, path
            assert np.array_equal(image.alpha, other[..., 3]), path
        compared += 1
    assert compared > 40
