"""Make a truth small for measuring, by track: clean, jpeg, jpeg75, camera or webp."""

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""RGB `[h, w, 3]`."""

Upscaler = Callable[[Pixels], Pixels]

BLUR_PX_PER_SCALE: Final = 0.3
"""Width of the camera's blur on the truth: sigma 1.2 at x4. With it bicubic enlargement of Set14
measures 24.97 dB, as the goals for this track assume."""

WEBP_QUALITY: Final = 60
"""Quality between the 50 and 75 of the JPEG tracks; the tools of the web default to 75 to 80."""


@dataclass(frozen=True)
class Small:
    """A truth made small: the file, and its pixels, `[h, w, 3]` uint8 RGB."""

    file: bytes

    @cached_property
    def pixels(self) -> Pixels:
        return decode(self.file)


def make_clean(truth: Pixels, scale: int) -> Pixels:
    """Shrink with the anti-aliased bicubic kernel, as super-resolution benchmarks do."""
    return shrink(truth, scale, Image.Resampling.BICUBIC)


def _camera_file(truth: Pixels, scale: int, name: str) -> bytes:
    """Blur lightly, shrink, add Gaussian noise of sigma 5 seeded by the picture's name, JPEG 75."""
    sigma_px = BLUR_PX_PER_SCALE * scale
    small = make_clean(blur(truth, (sigma_px, sigma_px)), scale)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noisy = np.rint(small + rng.standard_normal(small.shape) * 5)
    return encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), 75)


FILES: Mapping[str, Callable[[Pixels, int, str], bytes]] = {
    "clean": lambda truth, scale, _: encode_png(make_clean(truth, scale)),
    "jpeg": lambda truth, scale, _: encode_jpeg(make_clean(truth, scale), 50),
    "jpeg75": lambda truth, scale, _: encode_jpeg(make_clean(truth, scale), 75),
    "camera": _camera_file,
    "webp": lambda truth, scale, _: encode_webp(make_clean(truth, scale), WEBP_QUALITY),
}
"""JPEG has 4:2:0 chroma."""


def make_small(track: str, truth: Pixels, scale: int, name: str) -> Small:
    """Make a truth small (uint8 RGB `[h, w, 3]`, multiples of `scale`) by a track.

    `name` is the picture's, which seeds the camera's noise.
    """
    return Small(FILES[track](truth, scale, name))


def shrink(truth: Pixels, scale: int, kernel: Image.Resampling) -> Pixels:
    """Shrink by `scale` with an anti-aliased kernel; sides must be multiples of it."""
    height, width = truth.shape[0] // scale, truth.shape[1] // scale
    return np.asarray(Image.fromarray(truth).resize((width, height), kernel))


def blur(pixels: Pixels, sigma_px: tuple[float, float], turn_rad: float = 0.0) -> Pixels:
    """Blur by a Gaussian with two widths along turned axes; mirrored beyond the border."""
    reach = max(1, int(np.ceil(3 * max(sigma_px))))
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    along = (xs * np.cos(turn_rad) + ys * np.sin(turn_rad)) / max(sigma_px[0], 1e-3)
    beside = (ys * np.cos(turn_rad) - xs * np.sin(turn_rad)) / max(sigma_px[1], 1e-3)
    kernel = np.exp(-0.5 * (along**2 + beside**2))
    kernel /= kernel.sum()
    return np.asarray(cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Encode as JPEG with 4:2:0 chroma at `quality` (1 to 100)."""
    return _encode(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_webp(pixels: Pixels, quality: int) -> bytes:
    """Encode as lossy WebP at `quality` (1 to 100)."""
    return _encode(pixels, ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality])


def encode_png(pixels: Pixels) -> bytes:
    """Encode as PNG, with little compression."""
    return _encode(pixels, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1])


def decode(file: bytes) -> Pixels:
    """Decode a file that was made here to `[h, w, 3]` uint8 RGB."""
    with Image.open(io.BytesIO(file)) as picture:
        return np.array(picture.convert("RGB"), np.uint8)


def _encode(pixels: Pixels, suffix: str, options: list[int]) -> bytes:
    _, code = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return code.tobytes()
