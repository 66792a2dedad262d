"""Write the sample picture, cat.jpg, from the photograph that scikit-image's package carries.

First: `.venv/bin/python -m pip install --no-deps scikit-image==0.26.0`
"""

from importlib.metadata import distribution
from pathlib import Path

from PIL import Image

SAMPLE = Path(__file__).with_name("cat.jpg")


def main() -> None:
    package = distribution("scikit-image")
    with Image.open(Path(str(package.locate_file("skimage/data/chelsea.png")))) as photograph:
        pixels = Image.frombytes("RGB", photograph.size, photograph.convert("RGB").tobytes())
    pixels.save(SAMPLE, quality=95, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
