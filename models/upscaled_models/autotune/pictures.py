"""The pictures of the accuracy check: a photograph, a drawing, and flat colours.

`photo.png` is cut from "Chelsea the cat" by Stefan van der Walt, who gave it up to the public
domain (CC0 1.0): fur, an eye with a highlight, and a soft background.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image as PictureFile

from upscaled_models.backends.base import Window

SIDE_PX: Final = 96
"""Both pictures' side. Parts of it serve where a model is slow."""

FLAT_SIDE_PX: Final = 32
_FLAT_COLOURS: Final = ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 90), (10, 240, 120))

_PHOTO: Final = Path(__file__).with_name("photo.png")


def load_pictures(side_px: int) -> tuple[Window, ...]:
    """Load the photograph's and the drawing's middle, uint8 `[side_px, side_px, 3]`, RGB."""
    if side_px > SIDE_PX:
        raise ValueError(f"the pictures are {SIDE_PX} px wide, not {side_px}")
    start = (SIDE_PX - side_px) // 2
    part = slice(start, start + side_px)
    return tuple(np.ascontiguousarray(each[part, part]) for each in (_read_photo(), _draw()))


def make_flats() -> tuple[Window, ...]:
    """Make one window for each flat colour, uint8 `[FLAT_SIDE_PX, FLAT_SIDE_PX, 3]`, RGB."""
    return tuple(
        np.full((FLAT_SIDE_PX, FLAT_SIDE_PX, 3), colour, np.uint8) for colour in _FLAT_COLOURS
    )


def fill_window(picture: Window, side_px: int) -> Window:
    """Make a window of `side_px` with the picture in its top left corner, mirrored to fill it."""
    height, width = picture.shape[:2]
    below_px, right_px = max(0, side_px - height), max(0, side_px - width)
    filled = cv2.copyMakeBorder(picture, 0, below_px, 0, right_px, cv2.BORDER_REFLECT)
    return filled[:side_px, :side_px].astype(picture.dtype, copy=False)


def _read_photo() -> Window:
    with PictureFile.open(_PHOTO) as photo:
        return np.array(photo.convert("RGB"), np.uint8)


def _draw() -> Window:
    """Draw what a photograph has little of: ramps, thin lines at many angles, letters, grain."""
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    ramps = np.stack([columns * 2, rows * 2, 255 - columns - rows], axis=-1)
    rgb: Window = np.clip(ramps, 0, 255).astype(np.uint8)
    grain = np.random.default_rng(1).integers(0, 40, (SIDE_PX // 3, SIDE_PX, 3), np.uint8)
    rgb[: SIDE_PX // 3] += grain // 2
    for at in range(0, SIDE_PX, 8):
        cv2.line(rgb, (at, 0), (SIDE_PX - at, SIDE_PX), (255, 255 - at, at), 1, cv2.LINE_AA)
    cv2.putText(rgb, "x4 Rg", (6, SIDE_PX // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
    cv2.rectangle(rgb, (60, 60), (88, 88), (250, 250, 250), -1)
    return rgb
