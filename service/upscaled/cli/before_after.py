"""Draw a sheet of a picture before and after a model: the whole, and two details at 200 %."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

CROP_PX: Final = (320, 240)
"""Width and height of a detail, in pixels of the result: two columns fit a screen."""

ENLARGED: Final = 2
COLUMN_PX: Final = CROP_PX[0] * ENLARGED
LINE_PX: Final = 24
GAP_PX: Final = 8
_CANDIDATE_STEPS: Final = 4
"""Candidates for a detail are so many steps apart along its own side."""


def draw_sheet(before: Pixels, after: Pixels, title: str, names: tuple[str, str]) -> Image.Image:
    """Draw two named columns of uint8 RGB pixels: the whole, its busiest and its smoothest part."""
    rows = [("whole", _shrink(before), _shrink(after))]
    for label, box in zip(("busiest", "smoothest"), _find_details(after), strict=True):
        label = f"{label} part, {ENLARGED * 100} %"
        rows.append((label, _cut(before, box), _cut(after, box)))
    height = LINE_PX + sum(LINE_PX + left.height + GAP_PX for _, left, _ in rows)
    sheet = Image.new("RGB", (2 * COLUMN_PX + GAP_PX, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    draw.text((4, 3), title, fill="black", font=font)
    top = LINE_PX
    for label, *columns in rows:
        for at, (name, column) in enumerate(zip(names, columns, strict=True)):
            left = at * (COLUMN_PX + GAP_PX)
            draw.text((left + 4, top + 3), f"{name}: {label}", fill="black", font=font)
            sheet.paste(column, (left, top + LINE_PX))
        top += LINE_PX + columns[0].height + GAP_PX
    return sheet


def _shrink(pixels: Pixels) -> Image.Image:
    """Scale the whole picture down to one column; it is never enlarged."""
    height, width = pixels.shape[:2]
    gain = min(1.0, COLUMN_PX / width)
    size = (max(1, round(width * gain)), max(1, round(height * gain)))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def _cut(pixels: Pixels, box: tuple[int, int, int, int]) -> Image.Image:
    left, top, width, height = box
    part = Image.fromarray(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return part.resize((width * ENLARGED, height * ENLARGED), Image.Resampling.NEAREST)


def _find_details(pixels: Pixels) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Return (left, top, width, height) of the parts with the most and the least contrast."""
    height, width = pixels.shape[:2]
    crop_width, crop_height = min(CROP_PX[0], width), min(CROP_PX[1], height)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sums = cv2.integral(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), sdepth=cv2.CV_64F)
    inner = sums[crop_height:, crop_width:] - sums[:-crop_height, crop_width:]
    contrasts = inner - sums[crop_height:, :-crop_width] + sums[:-crop_height, :-crop_width]
    steps = (max(1, crop_height // _CANDIDATE_STEPS), max(1, crop_width // _CANDIDATE_STEPS))
    candidates = contrasts[:: steps[0], :: steps[1]]

    def box(index: np.intp) -> tuple[int, int, int, int]:
        row, column = np.unravel_index(index, candidates.shape)
        return int(column) * steps[1], int(row) * steps[0], crop_width, crop_height

    return box(candidates.argmax()), box(candidates.argmin())
