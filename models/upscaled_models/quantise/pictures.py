"""Pictures to calibrate a network with: drawn pages, flat colours, and the user's photos.

Flat colours are needed: without them, white came back as 247 of 255.
"""

import io
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as PictureFile

from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.tracks import Pixels

SIDE_PX: Final = 96
PAGES: Final = 24
PHOTOS: Final = 48
PHOTOS_TO_TUNE: Final = 140
"""More than for calibration alone: a thousand steps of tuning would overfit the few."""

HELD_OUT_ONE_IN: Final = 6
TRUTHS: Final = 12
TRUTH_PX: Final = 384

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


FLAT_COLOURS: Final = tuple(
    (red, green, blue) for red in (0, 128, 255) for green in (0, 128, 255) for blue in (0, 128, 255)
)


def draw_pictures(folder: Path | None, seed: int, photos: int = PHOTOS) -> tuple[Pixels, Pixels]:
    """Return pictures to calibrate with and others to compare, uint8 `[n, 96, 96, 3]` each.

    There are half as many drawn pages as photos; without a folder `PAGES` of them. Half of the
    photos are shrunk, a third is compressed. A folder without pictures raises ValueError.
    """
    rng = np.random.default_rng(seed)
    paths = [] if folder is None else _photos_in(folder)  # before any time goes into pages
    pages = photos // 2 if paths else PAGES
    pictures = [_draw_small_page(rng) for _ in range(pages)]
    if paths:
        pictures += _cut_photos(paths, rng, photos)
    held_out = pictures[::HELD_OUT_ONE_IN]
    kept = [picture for at, picture in enumerate(pictures) if at % HELD_OUT_ONE_IN]
    return np.stack([*kept, *flat_pictures(FLAT_COLOURS, SIDE_PX)]), np.stack(held_out)


def draw_truths(folder: Path) -> list[Pixels]:
    """Return the middles of at most 12 photos, one in six, that `draw_pictures` leaves out.

    They are uint8 `[384, 384, 3]`; smaller photos are left out.
    """
    kept_back = _photos_in(folder)[HELD_OUT_ONE_IN - 1 :: HELD_OUT_ONE_IN]
    truths: list[Pixels] = []
    for path in kept_back[:: max(1, len(kept_back) // TRUTHS)]:
        photo = read_rgb(path)
        top, left = ((side - TRUTH_PX) // 2 for side in photo.shape[:2])
        if min(top, left) >= 0:
            cut = photo[top : top + TRUTH_PX, left : left + TRUTH_PX]
            truths.append(np.ascontiguousarray(cut))
    return truths[:TRUTHS]


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a file to `[h, w, 3]` uint8 RGB, laid on white where it has alpha.

    A file that cannot be decoded, or has more than 8 bits a channel, raises ValueError.
    """
    try:
        with PictureFile.open(path) as photo:
            if photo.mode.startswith(("I", "F")):
                raise ValueError(f"{path} is no 8-bit picture")
            rgba = np.array(photo.convert("RGBA"), np.float32)
    except OSError as error:
        raise ValueError(f"{path} is no 8-bit picture") from error
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _photos_in(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no picture")
    return paths


def flat_pictures(colours: tuple[tuple[int, int, int], ...], side_px: int) -> list[Pixels]:
    """Return one uint8 `[side_px, side_px, 3]` of each colour."""
    return [np.full((side_px, side_px, 3), colour, np.uint8) for colour in colours]


def _draw_small_page(rng: Generator) -> Pixels:
    """Draw a corner of a page at 35 to 100 % of its size, for letters of a few pixels too."""
    page = draw_page(rng)
    factor = float(rng.choice([0.35, 0.5, 1.0]))
    small = cv2.resize(page, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return _cut(np.asarray(small, np.uint8), rng)


def _cut_photos(photos: list[Path], rng: Generator, count: int) -> list[Pixels]:
    paths = [path for at, path in enumerate(photos, 1) if at % HELD_OUT_ONE_IN]
    chosen = rng.choice(len(paths), count, replace=len(paths) < count)
    return [_cut_photo(read_rgb(paths[int(at)]), rng) for at in chosen]


def _cut_photo(photo: Pixels, rng: Generator) -> Pixels:
    factor = max(float(rng.choice([1.0, 0.5, 0.25])), SIDE_PX / min(photo.shape[:2]))
    if factor != 1.0:
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
        photo = np.asarray(cv2.resize(photo, size, interpolation=kind), np.uint8)
    cut = _cut(photo, rng)
    if rng.random() < 1 / 3:
        quality = int(rng.integers(30, 90))
        _, encoded = cv2.imencode(".jpg", cut, [cv2.IMWRITE_JPEG_QUALITY, quality])
        with PictureFile.open(io.BytesIO(encoded.tobytes())) as compressed:
            cut = np.array(compressed, np.uint8)[..., ::-1]
    return cut


def _cut(picture: Pixels, rng: Generator) -> Pixels:
    top = int(rng.integers(0, picture.shape[0] - SIDE_PX + 1))
    left = int(rng.integers(0, picture.shape[1] - SIDE_PX + 1))
    return np.ascontiguousarray(picture[top : top + SIDE_PX, left : left + SIDE_PX])
