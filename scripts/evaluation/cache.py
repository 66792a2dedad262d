"""Keep the results of large networks on disk between measurements."""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scripts.evaluation.upscalers import Upscaler

Pixels = NDArray[np.uint8]


def cached_upscaler(upscale: Upscaler, folder: Path) -> Upscaler:
    """Return `upscale` with its results kept as PNG files in `folder`, by their input's SHA-256.

    Args:
        folder: for this upscaler and scale alone. Delete it when the upscaler changes.
    """

    def upscale_once(small: Pixels) -> Pixels:
        path = folder / f"{hash_pixels(small)}.png"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            incoming = path.with_suffix(f".{os.getpid()}.tmp")
            Image.fromarray(upscale(small)).save(incoming, "PNG", compress_level=1)
            incoming.replace(path)
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))

    return upscale_once


def hash_pixels(pixels: Pixels) -> str:
    """Return the SHA-256 of a picture's size and values."""
    content = repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
    return hashlib.sha256(content).hexdigest()
