"""Load the ground truth for training: a folder of photos, and drawn text and line art."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.pictures import SUFFIXES, read_rgb

SHRINKS = (1.0, 0.8, 0.6)
"""Photos are kept at these sizes too: a shrunken photo is sharper per pixel than its original."""


@dataclass(frozen=True)
class Pictures:
    """The pictures that patches are cut from: `[h, w, 3]` uint8 RGB arrays."""

    photos: tuple[NDArray[np.uint8], ...]
    drawn: tuple[NDArray[np.uint8], ...]


def load_pictures(folder: Path, *, drawn: int, seed: int, least_side_px: int) -> Pictures:
    """Read every photo of `folder` at each size of `SHRINKS` that leaves `least_side_px`.

    Transparency is laid over white. Raises `ValueError` where the folder holds no usable photo.
    """
    photos: list[NDArray[np.uint8]] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        photo = read_rgb(path)
        for shrink in SHRINKS:
            sized = _shrink(photo, shrink)
            if min(sized.shape[:2]) >= least_side_px:
                photos.append(sized)
    if not photos:
        raise ValueError(f"{folder} holds no photo of at least {least_side_px} px")
    pages = tuple(draw_page(np.random.default_rng([seed, number])) for number in range(drawn))
    return Pictures(tuple(photos), pages)


def _shrink(photo: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    if factor == 1.0:
        return photo
    height, width = photo.shape[:2]
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
