"""Real networks in float32: what tiles give against one window over the whole picture."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.store import ModelStore
from service.config import Settings
from service.engine.choice import open_engine
from service.engine.torch_engine import TorchEngine
from service.image.types import Image
from service.upscale.loop import upscale


def drawing(height: int, width: int) -> NDArray[np.uint8]:
    """Lines, text, noise and gradients: something for every part of a network to answer to."""
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[0:height, 0:width]
    rgb = np.stack([columns * 2, rows * 2, (rows + columns)], axis=-1).astype(np.uint8)
    rgb[: height // 2] = cv2.add(
        rgb[: height // 2], rng.integers(0, 90, (height // 2, width, 3), dtype=np.uint8)
    )
    for at in range(0, width, 9):
        cv2.line(rgb, (at, 0), (width - at, height), (250, 250 - at, at), 1, cv2.LINE_AA)
    cv2.putText(rgb, "upscaled", (5, height - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1)
    return rgb


def largest_difference(engine: TorchEngine, scale: int, window_px: int, halo_px: int) -> int:
    image = Image(drawing(118, 131))
    tiled = replace(engine, window_px=window_px, halo_px=halo_px)
    results = [
        upscale(image, scale, each, on_tile=lambda done, total: None).rgb.astype(np.int16)
        for each in (tiled, replace(engine, window_px=1000))
    ]
    return int(np.abs(results[0] - results[1]).max())


def open_exact(data_dir: Path, name: str, scale: int) -> TorchEngine:
    settings = Settings(device="cpu", threads=1, data_dir=data_dir, model_x2=name, model_x4=name)
    engine = open_engine(settings, scale)
    assert isinstance(engine, TorchEngine)
    return engine


@pytest.mark.parametrize(("name", "scale"), [("upscaled-x2", 2), ("upscaled-x4", 4)])
def test_shipped_models_tile_without_a_single_level_of_difference(
    tmp_path: Path, name: str, scale: int
) -> None:
    engine = open_exact(tmp_path, name, scale)

    assert largest_difference(engine, scale, 2 * engine.halo_px + 40, engine.halo_px) == 0


def test_without_halo_the_same_comparison_finds_seams(tmp_path: Path) -> None:
    engine = open_exact(tmp_path, "upscaled-x4", 4)

    assert largest_difference(engine, 4, 60, 0) > 8


def test_an_official_compact_model_tiles_without_a_single_level_of_difference(
    tmp_path: Path, shared_dir: Path
) -> None:
    file = shared_dir / "weights" / "realesr-animevideov3.pth"
    ModelStore(tmp_path / "models").add("realesr-animevideov3", file)
    engine = open_exact(tmp_path, "realesr-animevideov3", 4)

    assert largest_difference(engine, 4, 2 * engine.halo_px + 40, engine.halo_px) == 0
    assert largest_difference(engine, 2, 2 * engine.halo_px + 40, engine.halo_px) == 0
