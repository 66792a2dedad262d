"""Draw contact sheets: the same enlarged crops of every upscaler side by side."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scripts.evaluation.measure import Truth
from scripts.evaluation.upscalers import AnyUpscaler, run
from upscaled_models.quantise.tracks import FILES, make_small

Pixels = NDArray[np.uint8]

CROP_PX = 120
ENLARGED = 2
LABEL_PX = 16
SUBJECT_CROP_PX = 240
SUBJECT_COLUMNS = 4
"""Four crops of 240 px at 200 % are 1920 px: as wide as most screens."""


def draw_sheet(
    truths: list[Truth],
    upscalers: Mapping[str, AnyUpscaler],
    scale: int,
    tracks: Collection[str] = tuple(FILES),
) -> Image.Image:
    """Draw one row per truth and track: input (nearest), each upscaler, truth, at 200 %."""
    rows = []
    for truth in truths:
        window = busiest_window(truth.pixels, CROP_PX)
        for track in tracks:
            small = make_small(track, truth.pixels, scale, truth.name)
            crops = {"input": small.pixels.repeat(scale, axis=0).repeat(scale, axis=1)[window]}
            crops |= {name: run(each, small)[window] for name, each in upscalers.items()}
            crops["truth"] = truth.pixels[window]
            labelled = {f"{truth.name} {track}: {name}": crop for name, crop in crops.items()}
            rows.append(_grid(labelled, len(labelled), CROP_PX))
    return _stack(rows)


def write_sheets(
    folder: Path,
    truths: list[Truth],
    upscalers: Mapping[str, AnyUpscaler],
    scale: int,
    tracks: Collection[str] = tuple(FILES),
) -> list[Path]:
    """Write one PNG per truth and track, `NAME-TRACK.png`: truth, then each upscaler, at 200 %."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for truth in truths:
        window = busiest_window(truth.pixels, SUBJECT_CROP_PX)
        for track in tracks:
            small = make_small(track, truth.pixels, scale, truth.name)
            crops = {f"{truth.name}, {track}: truth": truth.pixels[window]}
            crops |= {name: run(each, small)[window] for name, each in upscalers.items()}
            written.append(folder / f"{truth.name}-{track}.png")
            _grid(crops, SUBJECT_COLUMNS, SUBJECT_CROP_PX).save(written[-1])
    return written


def busiest_window(pixels: Pixels, side_px: int) -> tuple[slice, slice]:
    """Return the rows and columns of the crop with the most contrast, on a coarse grid."""
    grey = pixels.astype(np.float64).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    height, width = grey.shape
    windows = [
        (slice(top, top + side_px), slice(left, left + side_px))
        for top in range(0, max(1, height - side_px + 1), side_px // 4)
        for left in range(0, max(1, width - side_px + 1), side_px // 4)
    ]
    return max(windows, key=lambda window: float(steps[window].sum()))


def _grid(crops: Mapping[str, Pixels], columns: int, side_px: int) -> Image.Image:
    """Draw the crops in rows of `columns`, each under its label, enlarged without smoothing."""
    side = side_px * ENLARGED
    rows = -(-len(crops) // columns)
    sheet = Image.new("RGB", (side * min(columns, len(crops)), (side + LABEL_PX) * rows), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (label, crop) in enumerate(crops.items()):
        left, top = number % columns * side, number // columns * (side + LABEL_PX)
        size = (crop.shape[1] * ENLARGED, crop.shape[0] * ENLARGED)
        enlarged = Image.fromarray(crop).resize(size, Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top + LABEL_PX))
        draw.text((left + 3, top + 1), label[: side // 6], fill="black", font=font)
    return sheet


def _stack(rows: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet
