"""A contact sheet: the same crops from every upscaler side by side, enlarged, for the eye."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.evaluation.measure import Truth
from models.evaluation.tracks import TRACKS
from models.evaluation.upscalers import Upscaler

Pixels = NDArray[np.uint8]

CROP_PX = 120
ENLARGED = 2
LABEL_PX = 16


def draw_sheet(truths: list[Truth], upscalers: Mapping[str, Upscaler], scale: int) -> Image.Image:
    """One row per truth and track: input (nearest), each upscaler, truth, at 200 %."""
    rows = []
    for truth in truths:
        top, left = _busiest(truth.pixels)
        window = (slice(top, top + CROP_PX), slice(left, left + CROP_PX))
        for track, make_small in TRACKS.items():
            small = make_small(truth.pixels, scale, truth.name)
            columns = {"input": small.repeat(scale, axis=0).repeat(scale, axis=1)[window]}
            columns |= {name: upscale(small)[window] for name, upscale in upscalers.items()}
            columns["truth"] = truth.pixels[window]
            rows.append(_row(f"{truth.name} {track}", columns))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(label: str, columns: Mapping[str, Pixels]) -> Image.Image:
    side = CROP_PX * ENLARGED
    row = Image.new("RGB", (side * len(columns), side + LABEL_PX), "white")
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(12)
    for number, (name, crop) in enumerate(columns.items()):
        enlarged = Image.fromarray(crop).resize((side, side), Image.Resampling.NEAREST)
        row.paste(enlarged, (number * side, LABEL_PX))
        draw.text((number * side + 3, 1), f"{label}: {name}"[:38], fill="black", font=font)
    return row


def _busiest(pixels: Pixels) -> tuple[int, int]:
    """The corner of the crop with the most contrast, on a coarse grid."""
    grey = pixels.astype(np.float64).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    height, width = steps.shape
    corners = [
        (top, left)
        for top in range(0, max(1, height - CROP_PX), CROP_PX // 4)
        for left in range(0, max(1, width - CROP_PX), CROP_PX // 4)
    ]
    return max(corners, key=lambda c: steps[c[0] : c[0] + CROP_PX, c[1] : c[1] + CROP_PX].sum())
