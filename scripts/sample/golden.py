"""Write the golden pictures of `upscaled doctor`: two small parts of the sample, and what the
default models make of them in float32.

    .venv/bin/python scripts/sample/golden.py

Run it again when a default model changes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY_DIR))

from service.doctor.golden import FOLDER, JPEG_QUALITY, SOURCES  # noqa: E402

PARTS = {2: (150, 60, 246, 124), 4: (100, 80, 196, 144)}
"""Left, top, right and bottom in cat.jpg, by scale."""

SETTINGS = {"UPSCALED_PRECISION": "exact", "UPSCALED_JPEG_QUALITY": str(JPEG_QUALITY)}


def main() -> None:
    for scale, name in SOURCES.items():
        with Image.open(REPOSITORY_DIR / "scripts" / "sample" / "cat.jpg") as sample:
            part = sample.crop(PARTS[scale])
        if name.endswith(".png"):
            ramp = np.linspace(0, 255, part.width * part.height).astype(np.uint8)
            part.putalpha(Image.fromarray(ramp.reshape(part.height, part.width)))
        part.save(FOLDER / name, quality=JPEG_QUALITY, subsampling=0, optimize=True)
        _upscale(FOLDER / name, scale)


def _upscale(source: Path, scale: int) -> None:
    model = f"upscaled-x{scale}"
    command = [str(Path(sys.executable).with_name("upscaled")), "image", str(source)]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--scale", str(scale), "--model", model, "-o", folder]
        subprocess.run([*command, *options], check=True, env={**os.environ, **SETTINGS})
        (result,) = Path(folder).iterdir()
        (FOLDER / f"{model}-at-{scale}{source.suffix}").write_bytes(result.read_bytes())


if __name__ == "__main__":
    main()
