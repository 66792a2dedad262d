"""The three ways a truth is made small for measuring: clean, jpeg, camera."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.training.degradation import blur, compress_jpeg, shrink

Pixels = NDArray[np.uint8]

BLUR_PX_PER_SCALE = 0.3
"""Width of the camera's blur on the truth: sigma 1.2 at x4. With it bicubic enlargement of Set14
measures 24.97 dB, as the goals for this track assume."""


def make_clean(truth: Pixels, scale: int, name: str) -> Pixels:
    """Anti-aliased bicubic."""
    return shrink(truth, scale, Image.Resampling.BICUBIC)


def make_jpeg(truth: Pixels, scale: int, name: str) -> Pixels:
    """Bicubic, then JPEG of quality 50 with 4:2:0 chroma."""
    return compress_jpeg(make_clean(truth, scale, name), 50)


def make_camera(truth: Pixels, scale: int, name: str) -> Pixels:
    """Light blur, bicubic, Gaussian noise of sigma 5 seeded by the picture's name, JPEG 75."""
    sigma_px = BLUR_PX_PER_SCALE * scale
    small = make_clean(blur(truth, (sigma_px, sigma_px)), scale, name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noisy = np.rint(small + rng.standard_normal(small.shape) * 5)
    return compress_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), 75)


TRACKS: Mapping[str, Callable[[Pixels, int, str], Pixels]] = {
    "clean": make_clean,
    "jpeg": make_jpeg,
    "camera": make_camera,
}
