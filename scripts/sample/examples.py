"""Write the examples of the page's picker of models: one part of the sample through each model.

    .venv/bin/python scripts/sample/examples.py

Takes the models whose files are here (`upscaled models list`), in float32; run it again when a
shipped model changes, or for an official one that has no example yet. The others stay as they are.
A user's own models have none: the page then shows the name alone.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image

from upscaled.api.request.available_models import read_available_models
from upscaled.config import load_settings
from upscaled_models.registry import ModelSpec

FOLDER: Final = Path(__file__).resolve().parent
ASSETS: Final = FOLDER.parents[1] / "service" / "upscaled" / "api" / "static"
SAMPLE: Final = ASSETS / "sample.jpg"
SCALE: Final = 4
PART: Final = (96, 48, 156, 93)
"""Left, top, right and bottom in the sample: 60x45 pixels of an eye, its rim and fur."""
AROUND_PX: Final = 32
"""Surroundings of the part that a model sees, so that its edges look as inside a picture."""
QUALITY: Final = 80


def main() -> None:
    settings = load_settings()
    with Image.open(SAMPLE) as sample, tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.png"
        left, top, right, bottom = PART
        seen = (left - AROUND_PX, top - AROUND_PX, right + AROUND_PX, bottom + AROUND_PX)
        sample.crop(seen).save(part)
        for spec in read_available_models(settings.models_dir):
            if spec.source != "user" and not spec.same_as:
                write_example(spec, part, Path(folder))


def write_example(spec: ModelSpec, part: Path, folder: Path) -> None:
    """Write `model-NAME.jpg` into the service's assets."""
    command = Path(sys.executable).with_name("upscaled")
    results = folder / spec.name
    subprocess.run(
        [command, "image", part, "--scale", str(SCALE), "--model", spec.name, "-o", results],
        env={**os.environ, "UPSCALED_PRECISION": "exact"},
        check=True,
    )
    (result,) = results.glob("*.jpg")
    width_px, height_px = PART[2] - PART[0], PART[3] - PART[1]
    around_px = AROUND_PX * SCALE
    box = (
        around_px,
        around_px,
        around_px + width_px * SCALE,
        around_px + height_px * SCALE,
    )
    with Image.open(result) as picture:
        example = ASSETS / f"model-{spec.name}.jpg"
        picture.crop(box).save(example, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
