"""Make the small input from the ground truth: clean, lightly harmed, or thoroughly.

The thorough kind follows the two-stage degradation of Real-ESRGAN (arXiv:2107.10833, section 3.2:
blur, resize, noise, compression, twice) with milder ranges, since most real inputs are mild.
"""

from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from upscaled_models.quantise.tracks import (
    blur,
    decode,
    encode_jpeg,
    encode_png,
    encode_webp,
    shrink,
)

Pixels = NDArray[np.uint8]
Kind = Callable[[Pixels, int, Generator], bytes]
"""From a truth to the small picture's file."""


class Harm(IntEnum):
    """The degradation of an input besides being made small."""

    NONE = 0
    COMPRESSED = 1
    NOISY = 2


def degrade(
    truth: Pixels, scale: int, rng: Generator, unharmed_share: float | None = None
) -> tuple[Pixels, Harm]:
    """Shrink `[h*scale, w*scale, 3]` uint8 RGB to `[h, w, 3]` by a randomly drawn kind.

    Returns the input and the harm that its kind does. `unharmed_share` changes how often that is
    none; the other kinds keep their ratios.
    """
    file, harm = degrade_to_file(truth, scale, rng, unharmed_share)
    return decode(file), harm


def degrade_to_file(
    truth: Pixels, scale: int, rng: Generator, unharmed_share: float | None = None
) -> tuple[bytes, Harm]:
    """Degrade as `degrade` does, but return the encoded file, which shows its compression."""
    kinds: tuple[tuple[Kind, Harm], ...] = (
        (clean, Harm.NONE),
        (other_kernel, Harm.NONE),
        (compressed, Harm.COMPRESSED),
        (camera, Harm.NOISY),
        (thorough, Harm.NOISY),
    )
    shares = np.array(SHARES)
    if unharmed_share is not None:
        is_unharmed = np.array([harm is Harm.NONE for _, harm in kinds])
        for some, whole in ((is_unharmed, unharmed_share), (~is_unharmed, 1 - unharmed_share)):
            shares[some] *= whole / shares[some].sum()
    kind, harm = kinds[int(rng.choice(len(kinds), p=shares))]
    return kind(truth, scale, rng), harm


SHARES = (0.28, 0.06, 0.36, 0.24, 0.06)
"""Shares by which each kind is drawn: clean, other kernel, compressed, camera, thorough."""


def clean(truth: Pixels, scale: int, rng: Generator) -> bytes:
    """Shrink by anti-aliased bicubic, as the field's benchmarks shrink."""
    return encode_png(shrink(truth, scale, Image.Resampling.BICUBIC))


def other_kernel(truth: Pixels, scale: int, rng: Generator) -> bytes:
    """Shrink as programs do in practice: area, triangle or Lanczos."""
    kernels = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
    return encode_png(shrink(truth, scale, kernels[int(rng.integers(0, len(kernels)))]))


def compressed(truth: Pixels, scale: int, rng: Generator) -> bytes:
    """Shrink by bicubic, then compress as JPEG of quality 30 to 95 or, one time in six, WebP."""
    return _compress(shrink(truth, scale, Image.Resampling.BICUBIC), rng, lowest=30)


def camera(truth: Pixels, scale: int, rng: Generator) -> bytes:
    """Blur lightly, shrink by bicubic, add sensor noise, compress lightly."""
    small = shrink(_blur(truth, rng, widest=0.5 * scale), scale, Image.Resampling.BICUBIC)
    small = _noise(small, rng, strongest=9.0)
    return _compress(small, rng, lowest=55) if rng.random() < 0.8 else encode_png(small)


def thorough(truth: Pixels, scale: int, rng: Generator) -> bytes:
    """Blur, resize, add noise and compress, twice."""
    height, width = truth.shape[0] // scale, truth.shape[1] // scale
    pixels = _blur(truth, rng, widest=0.5 * scale)
    between = float(rng.uniform(1.0, 2.0))
    pixels = _resize(pixels, (round(width * between), round(height * between)), rng)
    pixels = decode(_compress(_noise(pixels, rng, strongest=12.0), rng, lowest=40))
    pixels = _blur(pixels, rng, widest=0.8)
    pixels = _resize(pixels, (width, height), rng)
    return _compress(_noise(pixels, rng, strongest=6.0), rng, lowest=40)


def _blur(pixels: Pixels, rng: Generator, widest: float) -> Pixels:
    first = float(rng.uniform(0.1, widest))
    second = first if rng.random() < 0.6 else float(rng.uniform(0.1, widest))
    return blur(pixels, (first, second), float(rng.uniform(0, np.pi)))


def _noise(pixels: Pixels, rng: Generator, strongest: float) -> Pixels:
    """Add Gaussian or Poisson noise of up to `strongest` levels, in colour or grey."""
    height, width = pixels.shape[:2]
    channels = 1 if rng.random() < 0.3 else 3
    level = float(rng.uniform(0, strongest))
    noise = rng.standard_normal((height, width, channels), dtype=np.float32) * level
    if rng.random() < 0.3:  # photon noise grows with the square root of the light
        noise = noise * np.sqrt(pixels.astype(np.float32) / 128)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _compress(pixels: Pixels, rng: Generator, lowest: int) -> bytes:
    quality = int(rng.integers(lowest, 96))
    if rng.random() < 1 / 6:
        return encode_webp(pixels, quality)
    return encode_jpeg(pixels, quality)


def _resize(pixels: Pixels, size: tuple[int, int], rng: Generator) -> Pixels:
    kernels = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.BOX)
    kernel = kernels[int(rng.integers(0, len(kernels)))]
    return np.asarray(Image.fromarray(pixels).resize(size, kernel))
