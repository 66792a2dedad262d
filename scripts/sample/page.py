"""Write what the page at / shows before anyone sent it a picture: a part of the sample, and the
product's answer to it.

    .venv/bin/python scripts/sample/page.py

Run it again when the default model for scale 4 changes: the page says whose work it shows.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent
ASSETS = FOLDER.parents[1] / "service" / "upscaled" / "api" / "static"
PART = (64, 30, 384, 270)
"""Left, top, right and bottom in cat.jpg: 320x240 pixels of eyes, nose and whiskers."""
SCALE = 4


def main() -> None:
    source = ASSETS / "sample.jpg"
    with Image.open(FOLDER / "cat.jpg") as sample:
        sample.crop(PART).save(source, quality=92, subsampling=0, optimize=True)
    command = Path(sys.executable).with_name("upscaled")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([command, "image", source, "--scale", str(SCALE), "-o", folder], check=True)
        (result,) = Path(folder).glob("*.jpg")
        with Image.open(result) as picture:
            # Smaller than the real answer's quality of 95: it comes with every visit.
            picture.save(ASSETS / "sample-x4.jpg", quality=82, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
