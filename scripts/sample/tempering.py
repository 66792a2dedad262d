"""Draw the pictures of the page of models that show what tempering does.

    .venv/bin/python scripts/sample/tempering.py FOLDER

Each is a strip at 200 %: the faithful network, the one that invents texture, both tempered, and the
truth. `FOLDER` holds the photographs (see `README.md` for where they come from); lettering is
drawn here. Needs `upscaled models fetch realesrgan-x4plus`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.evaluation.subjects import draw_subjects
from scripts.evaluation.upscalers import network_upscaler, open_network
from upscaled.config import load_settings
from upscaled.image.decode import decode_file
from upscaled.image.harm import measure_harm
from upscaled.upscale.post_process.tempering import AUTO_STRENGTH, Tempering, temper
from upscaled_models.quantise.pictures import read_rgb
from upscaled_models.quantise.tracks import make_small

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

PAGE_FOLDER: Final = (
    Path(__file__).resolve().parents[2] / "service" / "upscaled" / "docs" / "tempering"
)
SCALE: Final = 4
ENLARGED: Final = 2
AROUND_PX: Final = 64
"""Surroundings of a part that the networks see, so that its edges look as inside a picture."""
LABEL_PX: Final = 20
QUALITY: Final = 82
PARTS: Final[tuple[tuple[str, str, str, Box], ...]] = (
    ("face", "astronaut.png", "clean", (160, 64, 304, 184)),
    ("lettering", "text.png", "jpeg", (0, 0, 144, 120)),
    ("rock", "cliff.png", "jpeg75", (120, 272, 264, 392)),
)
"""Strip, picture, track, and left, top, right and bottom of the part in the truth."""


def main() -> None:
    folder = Path(sys.argv[1])
    models_dir = load_settings().models_dir
    faithful, vivid = (
        network_upscaler(*open_network(name, models_dir), SCALE)
        for name in ("upscaled-x4-faithful", "realesrgan-x4plus")
    )
    PAGE_FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as drawn:
        draw_subjects(Path(drawn))
        for name, file, track, box in PARTS:
            path = folder / file
            truth, inner = cut(read_rgb(path if path.is_file() else Path(drawn) / file), box)
            small = make_small(track, truth, SCALE, name)
            results = faithful(small.pixels), vivid(small.pixels)
            tempering = Tempering.of(AUTO_STRENGTH, SCALE, measure_harm(decode_file(small.file)))
            tempered = np.asarray(temper(results[1], results[0], tempering), np.uint8)
            columns = {
                "upscaled-x4-faithful": results[0],
                "realesrgan-x4plus": results[1],
                "tempered": tempered,
                "truth": truth,
            }
            strip = draw_strip({label: each[inner] for label, each in columns.items()})
            strip.save(PAGE_FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)


def cut(picture: Pixels, box: Box) -> tuple[Pixels, tuple[slice, slice]]:
    """Cut the part with its surroundings, in whole pixels of the small picture."""
    left, top, right, bottom = box
    first_row, first_column = max(0, top - AROUND_PX), max(0, left - AROUND_PX)
    seen = picture[first_row : bottom + AROUND_PX, first_column : right + AROUND_PX]
    height, width = (side // SCALE * SCALE for side in seen.shape[:2])
    inner = (
        slice(top - first_row, bottom - first_row),
        slice(left - first_column, right - first_column),
    )
    return np.ascontiguousarray(seen[:height, :width]), inner


def draw_strip(columns: dict[str, Pixels]) -> Image.Image:
    """Draw the pictures side by side, each pixel enlarged to a square, under their labels."""
    height, width = (side * ENLARGED for side in next(iter(columns.values())).shape[:2])
    strip = Image.new("RGB", (width * len(columns), height + LABEL_PX), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(14)
    for number, (label, pixels) in enumerate(columns.items()):
        enlarged = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        strip.paste(enlarged, (number * width, LABEL_PX))
        draw.text((number * width + 4, 1), label, fill="black", font=font)
    return strip


if __name__ == "__main__":
    main()
