"""Write before-after.jpg, README's picture: the sample by bicubic interpolation, and by upscaled.

    .venv/bin/python scripts/sample/compare.py

Both halves are the same part of the same four times enlarged picture, at full size.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent
SAMPLE = FOLDER / "cat.jpg"
SCALE = 4
PARTS = ((520, 300), (820, 790))
"""Left and top, in the enlarged picture, of what each row shows: an eye, the nose and whiskers."""
PART_SIZE_PX = (490, 330)
GAP_PX = 8


def main() -> None:
    with Image.open(SAMPLE) as sample:
        bicubic = sample.resize(
            (sample.width * SCALE, sample.height * SCALE), Image.Resampling.BICUBIC
        )
    compose(bicubic, upscale()).save(FOLDER / "before-after.jpg", quality=92, subsampling=0)


def upscale() -> Image.Image:
    """Enlarge the sample by the product's own command."""
    command = Path(sys.executable).with_name("upscaled")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([command, "image", SAMPLE, "--scale", str(SCALE), "-o", folder], check=True)
        (result,) = Path(folder).glob("*.jpg")
        with Image.open(result) as picture:
            picture.load()
            return picture


def compose(before: Image.Image, after: Image.Image) -> Image.Image:
    """Put the parts of `before` into the left column, those of `after` into the right one."""
    width, height = PART_SIZE_PX
    sheet = Image.new("RGB", (2 * width + GAP_PX, len(PARTS) * (height + GAP_PX) - GAP_PX), "white")
    for row, (left, top) in enumerate(PARTS):
        box = (left, top, left + width, top + height)
        for column, picture in enumerate((before, after)):
            place = (column * (width + GAP_PX), row * (height + GAP_PX))
            sheet.paste(picture.crop(box), place)
    return sheet


if __name__ == "__main__":
    main()
