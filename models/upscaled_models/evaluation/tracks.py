"""The ways a truth is made small for measuring: clean, jpeg, jpeg75, camera, webp.

Each track makes a file, as people send them: a compressed one says how coarsely it was quantised.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upscaled_models.training.degradation import (
    blur,
    decode,
    encode_jpeg,
    encode_png,
    encode_webp,
    shrink,
)

Pixels = NDArray[np.uint8]

BLUR_PX_PER_SCALE = 0.3
"""Width of the camera's blur on the truth: sigma 1.2 at x4. With it bicubic enlargement of Set14
measures 24.97 dB, as the goals for this track assume."""

WEBP_QUALITY = 60
"""Between the 50 and 75 of the JPEG tracks; the web's own tools default to 75 to 80."""


@dataclass(frozen=True)
class Small:
    """A truth made small: the file, and its pixels, `[h, w, 3]` uint8 RGB."""

    file: bytes

    @cached_property
    def pixels(self) -> Pixels:
        return decode(self.file)


def make_clean(truth: Pixels, scale: int, name: str) -> Pixels:
    """Anti-aliased bicubic."""
    return shrink(truth, scale, Image.Resampling.BICUBIC)


def _clean_file(truth: Pixels, scale: int, name: str) -> bytes:
    return encode_png(make_clean(truth, scale, name))


def _jpeg_file(truth: Pixels, scale: int, name: str) -> bytes:
    """Bicubic, then JPEG of quality 50 with 4:2:0 chroma."""
    return encode_jpeg(make_clean(truth, scale, name), 50)


def _jpeg75_file(truth: Pixels, scale: int, name: str) -> bytes:
    """Bicubic, then JPEG of quality 75 with 4:2:0 chroma."""
    return encode_jpeg(make_clean(truth, scale, name), 75)


def _camera_file(truth: Pixels, scale: int, name: str) -> bytes:
    """Light blur, bicubic, Gaussian noise of sigma 5 seeded by the picture's name, JPEG 75."""
    sigma_px = BLUR_PX_PER_SCALE * scale
    small = make_clean(blur(truth, (sigma_px, sigma_px)), scale, name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noisy = np.rint(small + rng.standard_normal(small.shape) * 5)
    return encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), 75)


def _webp_file(truth: Pixels, scale: int, name: str) -> bytes:
    """Bicubic, then lossy WebP."""
    return encode_webp(make_clean(truth, scale, name), WEBP_QUALITY)


FILES: Mapping[str, Callable[[Pixels, int, str], bytes]] = {
    "clean": _clean_file,
    "jpeg": _jpeg_file,
    "jpeg75": _jpeg75_file,
    "camera": _camera_file,
    "webp": _webp_file,
}

GOAL_TRACKS = ("clean", "jpeg", "camera")
"""The tracks that the goals of the project's own models are set for."""


def make_small(track: str, truth: Pixels, scale: int, name: str) -> Small:
    """Make a truth small by the track of that name.

    Args:
        truth: `[h, w, 3]` uint8 RGB; its sides are multiples of `scale`.
        name: of the picture; it seeds the camera's noise.
    """
    return Small(FILES[track](truth, scale, name))


def _pixels_of(track: str) -> Callable[[Pixels, int, str], Pixels]:
    return lambda truth, scale, name: make_small(track, truth, scale, name).pixels


TRACKS: Mapping[str, Callable[[Pixels, int, str], Pixels]] = {
    track: _pixels_of(track) for track in FILES
}
"""The same as pixels alone."""
