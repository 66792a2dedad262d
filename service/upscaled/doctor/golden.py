"""Golden images: two small ones, and what known models make of them in float32.

golden/at-2.png    96x64 with transparency: becomes a PNG
golden/at-4.jpg    96x64: becomes a JPEG
golden/MODEL-at-2.png, golden/MODEL-at-4.jpg    the results, of the shipped models at their scale
    and of the official RRDB networks in 16 bits at both (averaged down at 2), untempered
golden/MODEL-tempered-at-4.jpg    the same, tempered as by default
"""

from pathlib import Path
from typing import Final

import numpy as np

from upscaled.image.types import Image
from upscaled_models import accuracy
from upscaled_models.accuracy import psnr_db
from upscaled_models.registry import read_default_models

FOLDER: Final = Path(__file__).parent / "golden"
SOURCES: Final = {2: "at-2.png", 4: "at-4.jpg"}
JPEG_QUALITY: Final = 95

_LOST_TO_JPEG_DB: Final = 2.0
MIN_PSNR_DB: Final = accuracy.MIN_PSNR_DB["fast"] - _LOST_TO_JPEG_DB
"""Least PSNR of a shipped model: that of `fast`, less what a JPEG loses."""

MIN_INVENTED_PSNR_DB: Final = 30.0
"""Least PSNR of any other model. Texture that a network invents is chaotic: x4plus in 8 bits is 33
to 44 dB from float32 by picture, and looks the same. What a broken device computes is far below."""


def read_source(scale: int) -> bytes:
    return (FOLDER / SOURCES[scale]).read_bytes()


def read_expected(model: str, scale: int, *, is_tempered: bool = False) -> bytes | None:
    name = f"{model}-tempered" if is_tempered else model
    path = FOLDER / f"{name}-at-{scale}{Path(SOURCES[scale]).suffix}"
    return path.read_bytes() if path.is_file() else None


def find_least_psnr_db(model: str) -> float:
    """Return the least PSNR of a model's result against its stored one."""
    is_shipped = any(spec.name == model for spec in read_default_models())
    return MIN_PSNR_DB if is_shipped else MIN_INVENTED_PSNR_DB


def compare(expected: Image, got: Image) -> float:
    """Return the decibels between what two images show; 0 where their sizes differ."""
    a, b = _planes(expected), _planes(got)
    if a.shape != b.shape:
        return 0.0
    return psnr_db(float(np.square(a - b).mean()))


def _planes(image: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return `[H, W, 3]`, or `[H, W, 4]` with alpha and black where that hides the colour."""
    if image.alpha is None:
        return image.rgb.astype(np.float64)
    alpha = image.alpha[..., None]
    return np.concatenate([image.rgb * (alpha > 0), alpha], axis=2).astype(np.float64)
