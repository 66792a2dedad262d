"""JPEG files of every kind, whole and as a transfer that ends early leaves them."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tests.service.image.samples import picture
from upscaled.image.formats.jpeg.scans import Structure, read_scans
from upscaled.image.formats.jpeg.segments import read_leading_segments

EOI = b"\xff\xd9"
FOLDER = Path(__file__).parent / "jpegs"
"""Files that Pillow cannot write, made by jpegtran and cjpeg of libjpeg-turbo 2.1.5."""

_OPTIONS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {"subsampling": 2}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "optimised": ("RGB", {"optimize": True}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive 4:4:4": ("RGB", {"progressive": True, "subsampling": 0}),
    "restarts": ("RGB", {"restart_marker_blocks": 4}),
    "restarts by rows": ("RGB", {"restart_marker_rows": 1}),
    "progressive with restarts": ("RGB", {"progressive": True, "restart_marker_blocks": 7}),
    "grey": ("L", {}),
    "progressive grey": ("L", {"progressive": True}),
    "cmyk": ("CMYK", {}),
    "progressive cmyk": ("CMYK", {"progressive": True}),
}
STORED = tuple(sorted(path.stem for path in FOLDER.glob("*.jpg")))
KINDS = (*_OPTIONS, *STORED)


def save_jpeg(pixels: NDArray[np.uint8], kind: str = "baseline", **options: object) -> bytes:
    """Encode RGB pixels as a JPEG file of a kind that Pillow writes."""
    mode, own = _OPTIONS[kind]
    file = BytesIO()
    PillowImage.fromarray(pixels).convert(mode).save(file, "JPEG", **{**own, **options})
    return file.getvalue()


def photograph(height: int = 97, width: int = 133, grain: int = 40) -> NDArray[np.uint8]:
    """Draw smooth colours under grain; the sides are no multiples of a block."""
    noise = np.random.default_rng(7).integers(-grain, grain, (height, width, 1))
    return np.asarray(np.clip(picture(height, width) + noise, 0, 255), np.uint8)


def product(height: int = 600, width: int = 400) -> NDArray[np.uint8]:
    """Draw a thing of much detail in the upper half of a white image."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[40:200, 50:300] = photograph(160, 250)
    return pixels


def make_jpeg(kind: str) -> bytes:
    """Make or load a file of a kind."""
    if kind in STORED:
        return (FOLDER / f"{kind}.jpg").read_bytes()
    return save_jpeg(photograph(), kind)


def read_structure(source: bytes) -> Structure:
    """Read all parts of a JPEG file."""
    return read_scans(source, read_leading_segments(source))


def cut(source: bytes, places: int, chance: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Iterate over names and files cut at `places` places, in five forms each."""
    for place in range(1, places + 1):
        at = len(source) * place // (places + 1)
        kept, lost = source[:at], len(source) - at
        yield f"cut at {at}", kept
        yield f"cut at {at}, an end marker", kept + EOI
        yield f"cut at {at}, zeros", kept + bytes(lost)
        yield f"cut at {at}, zeros and an end marker", kept + bytes(lost - 2) + EOI
        yield f"cut at {at}, noise", kept + chance.bytes(lost)
