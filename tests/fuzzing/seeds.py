"""Sound files of every kind that is decoded, to be damaged."""

from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tests.service.image.samples import (
    GREY_ALPHA,
    PALETTE,
    RGB,
    chunk,
    deep_samples,
    exif_with_orientation,
    picture,
    png,
    save,
    srgb_profile,
)

SIDES_PX = (64, 80)
LARGEST_BYTES = 100_000


def make_seeds(images_dir: Path | None = None) -> dict[str, bytes]:
    """Sound files by name; of `images_dir` the smaller ones too, sound or not."""
    seeds = {
        f"{kind}/{side_px}": source
        for side_px in SIDES_PX
        for kind, source in make_of_one_size(side_px)
    }
    if images_dir is not None:
        for path in sorted(images_dir.rglob("*")):
            if path.is_file() and 0 < path.stat().st_size <= LARGEST_BYTES:
                seeds[path.relative_to(images_dir).as_posix()] = path.read_bytes()
    return seeds


def make_of_one_size(side_px: int) -> Iterator[tuple[str, bytes]]:
    opaque, cut_out = picture(side_px, side_px), picture(side_px, side_px, 4)
    exif = exif_with_orientation(6)
    profile = srgb_profile()
    tagged: dict[str, Any] = {"exif": exif, "icc_profile": profile}
    palette = chunk(b"PLTE", bytes(range(48))) + chunk(b"tRNS", b"\x00\x80")
    yield "jpeg", save(opaque, "JPEG", comment=b"words", **tagged)
    yield "progressive jpeg", save(opaque, "JPEG", progressive=True)
    yield "cmyk jpeg", save_cmyk(opaque)
    yield "grey jpeg", save(opaque[..., 0].copy(), "JPEG")
    yield "png", save(cut_out, "PNG", **tagged)
    yield "deep png", png(deep_samples(3, 16, side_px, side_px), 16, RGB)
    yield "grey alpha png", png(deep_samples(2, 16, side_px, side_px), 16, GREY_ALPHA)
    yield "palette png", png(deep_samples(1, 4, side_px, side_px), 4, PALETTE, before=palette)
    yield "webp", save(opaque, "WEBP", **tagged)
    yield "alpha webp", save(cut_out, "WEBP")
    yield "lossless webp", save(cut_out, "WEBP", lossless=True, exact=True)
    if find_spec("pillow_heif"):
        yield "heic", save_heic(cut_out)
    yield "avif", save(cut_out, "AVIF", **tagged)
    yield "bmp", save(opaque, "BMP")
    yield "tiff", save(opaque, "TIFF", tiffinfo={274: 6})
    yield "deflated tiff", save(cut_out, "TIFF", compression="tiff_adobe_deflate")
    yield "jpeg tiff", save(opaque, "TIFF", compression="jpeg")


def save_heic(pixels: NDArray[np.uint8]) -> bytes:
    from pillow_heif import from_pillow

    file = BytesIO()
    from_pillow(PillowImage.fromarray(pixels)).save(file, quality=90)
    return file.getvalue()


def save_cmyk(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    PillowImage.fromarray(pixels).convert("CMYK").save(file, "JPEG")
    return file.getvalue()
