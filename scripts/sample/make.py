"""Write the sample picture, cat.jpg, from the photograph in the scikit-image package.

.venv/bin/python -m pip install -r tests/reference/requirements.txt
.venv/bin/python scripts/sample/make.py
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLE = Path(__file__).with_name("cat.jpg")


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """`[H, W, 3]` RGB as the sample's JPEG: full colour resolution, no metadata."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0, optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    from skimage import data

    SAMPLE.write_bytes(encode(data.chelsea()))
