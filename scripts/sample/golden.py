"""Write the golden pictures of `upscaled doctor`: two small parts of the sample, and what the
default models and the official ones of the installed package make of them in float32.

    .venv/bin/python scripts/sample/golden.py [MODEL ...]

Run it again when a default model or the colour correction changes; with names, only the pictures of
those default models are written (`scripts/train ship` does so).
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

from upscaled.doctor.golden import FOLDER, JPEG_QUALITY, SOURCES  # noqa: E402

PARTS = {2: (150, 60, 246, 124), 4: (100, 80, 196, 144)}
"""Left, top, right and bottom in cat.jpg, by scale."""

SHIPPED = {2: ("upscaled-x2", "upscaled-x2-faithful"), 4: ("upscaled-x4", "upscaled-x4-faithful")}
OFFICIAL = ("realesrgan-x4plus", "realesrgan-x4plus-anime-6b")
"""At both scales: x2 is averaged down."""

SETTINGS = {"UPSCALED_PRECISION": "exact", "UPSCALED_JPEG_QUALITY": str(JPEG_QUALITY)}


def main(only: list[str]) -> None:
    for scale, name in SOURCES.items():
        with Image.open(REPOSITORY_DIR / "scripts" / "sample" / "cat.jpg") as sample:
            part = sample.crop(PARTS[scale])
        if name.endswith(".png"):
            ramp = np.linspace(0, 255, part.width * part.height).astype(np.uint8)
            part.putalpha(Image.fromarray(ramp.reshape(part.height, part.width)))
        part.save(FOLDER / name, quality=JPEG_QUALITY, subsampling=0, optimize=True)
        for model in (*SHIPPED[scale], *OFFICIAL):
            if not only or model in only:
                _upscale(FOLDER / name, scale, model, ["--model", model])
    if not only:
        _upscale(FOLDER / SOURCES[4], 4, f"{OFFICIAL[0]}-tempered", [])


def _upscale(source: Path, scale: int, kept_as: str, choice: list[str]) -> None:
    command = [str(Path(sys.executable).with_name("upscaled")), "image", str(source)]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--scale", str(scale), *choice, "-o", str(Path(folder, "out"))]
        data = {"UPSCALED_DATA_DIR": str(Path(folder, "data"))}
        environment = {**os.environ, **SETTINGS, **data}
        subprocess.run([*command, *options], check=True, env=environment)
        (result,) = Path(folder, "out").glob(f"*{source.suffix}")
        (FOLDER / f"{kept_as}-at-{scale}{source.suffix}").write_bytes(result.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
