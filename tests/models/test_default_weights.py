"""The shipped models: they equal the manifest, and are better than a resize."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import upscaled_models.default
from scripts.evaluation.measure import flat_error_levels
from scripts.evaluation.metrics import acutance
from scripts.evaluation.upscalers import Upscaler, kernel_upscaler, network_upscaler, open_network
from upscaled_models.quantise.metrics import luma, psnr_db
from upscaled_models.quantise.tracks import make_clean

FOLDER = Path(upscaled_models.default.__file__).parent
MANIFEST: dict[str, dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text())
FAITHFUL = ("upscaled-x2-faithful", "upscaled-x4-faithful")
PLAIN = (*FAITHFUL, "upscaled-x2")
NAMES = (*PLAIN, "upscaled-x4")


def open_default(name: str) -> tuple[Upscaler, int]:
    network, scale = open_network(str(FOLDER / MANIFEST[name]["file"]), FOLDER)
    return network_upscaler(network, scale, scale), scale


def draw_truth() -> NDArray[np.uint8]:
    """Leaf-like ellipses, hair-fine lines, text and a gradient, drawn large and shrunk."""
    ys, xs = np.mgrid[0:768, 0:768]
    canvas = np.stack([60 + xs / 8, 90 + ys / 8, 200 - xs / 10], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(11)
    for _ in range(250):
        centre, axes = rng.integers(0, 768, 2).tolist(), rng.integers(3, 30, 2).tolist()
        colour = rng.integers(0, 256, 3).tolist()
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
    for x in range(20, 760, 25):
        cv2.line(canvas, (x, 0), (x + 90, 300), (20, 20, 30), 2, cv2.LINE_AA)
    for row, word in enumerate(("Upscaled", "0123456789", "hair-fine")):
        place = (40, 450 + 110 * row)
        cv2.putText(canvas, word, place, cv2.FONT_HERSHEY_DUPLEX, 3.0, (250, 250, 250), 5)
    return np.asarray(cv2.resize(canvas, (384, 384), interpolation=cv2.INTER_AREA), np.uint8)


def test_all_models_are_there_and_with_their_8_bits_under_8_mb() -> None:
    assert sorted(MANIFEST) == sorted(NAMES)
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 8_000_000


def test_only_the_plain_models_keep_colours_by_themselves() -> None:
    """What was trained from Real-ESRGAN's weights stays under their licence."""
    for name in NAMES:
        is_plain = name in PLAIN
        assert MANIFEST[name]["keeps_colour"] == is_plain
        assert MANIFEST[name]["licence"] == ("Apache-2.0" if is_plain else "BSD-3-Clause")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_the_one_that_the_manifest_names(name: str) -> None:
    content = (FOLDER / MANIFEST[name]["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == MANIFEST[name]["sha256"]
    assert len(content) == MANIFEST[name]["size_bytes"]


@pytest.mark.parametrize(
    ("name", "gain_db", "most"),
    [
        *(pytest.param(name, 1.0, 1.1, marks=pytest.mark.slow) for name in FAITHFUL),
        ("upscaled-x2", 1.0, 1.15),
        ("upscaled-x4", 0, 1.1),
    ],
)
def test_a_model_rebuilds_a_drawing_better_and_crisper_than_bicubic(
    name: str, gain_db: float, most: float
) -> None:
    """And at `most` so many times as crisp as the drawing: its edges are soft already."""
    upscale, scale = open_default(name)
    truth = draw_truth()
    small = make_clean(truth, scale)
    bicubic = kernel_upscaler(Image.Resampling.BICUBIC, scale)
    ours, theirs, whole = (luma(x) for x in (upscale(small), bicubic(small), truth))
    assert psnr_db(ours, whole) > psnr_db(theirs, whole) + gain_db
    assert acutance(theirs) < acutance(ours) < most * acutance(whole)


@pytest.mark.parametrize("name", PLAIN)
def test_flat_colours_are_reproduced_exactly(name: str) -> None:
    upscale, _ = open_default(name)
    assert flat_error_levels(upscale) == 0
