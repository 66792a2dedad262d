"""Real networks in float32: what tiles give against one window over the whole picture."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.models.specs import spec_of
from tests.service.opened import open_engine
from tests.service.upscale.box_engine import upscale_through
from upscaled.config import Settings
from upscaled.image.types import Image
from upscaled_models.backends.base import LoadedModel, least_window_px
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, open_torch
from upscaled_models.families import Family, Shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.families.span import span_shape
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

CPU = Device(torch.device("cpu"), torch.float32, threads=1)

SMALL = (75, 83)
"""For windows that give few pixels each: dozens of them, the last ones shifted inwards."""


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


def largest_difference(
    engine: TorchEngine, scale: int, window_px: int, halo_px: int, size: tuple[int, int] = SMALL
) -> int:
    image = Image(drawing(*size))
    spec = replace(engine.info.spec, halo_px=halo_px)
    tiled = replace(engine.info, spec=spec, window_px=window_px)
    results = []
    for info in (tiled, replace(engine.info, window_px=1000)):
        each = replace(engine, info=info)
        results.append(upscale_through(image, scale, each).rgb.astype(np.int16))
    return int(np.abs(results[0] - results[1]).max())


def open_exact(data_dir: Path, name: str, scale: int) -> TorchEngine:
    settings = Settings(
        device="cpu", precision="exact", threads=1, data_dir=data_dir, model_x2=name, model_x4=name
    )
    engine = open_engine(settings, scale)
    assert isinstance(engine, TorchEngine)
    return engine


@pytest.mark.parametrize(
    ("name", "scale"),
    [(f"upscaled-x{scale}{kind}", scale) for scale in (2, 4) for kind in ("", "-faithful")],
)
def test_shipped_models_tile_without_a_single_level_of_difference(
    tmp_path: Path, name: str, scale: int
) -> None:
    engine = open_exact(tmp_path, name, scale)

    halo_px = engine.info.spec.halo_px
    assert largest_difference(engine, scale, 2 * halo_px + 16, halo_px) == 0


def test_without_halo_the_same_comparison_finds_seams(tmp_path: Path) -> None:
    engine = open_exact(tmp_path, "upscaled-x4-faithful", 4)

    assert largest_difference(engine, 4, 60, 0) > 8


class Loud(nn.Module):
    """A fresh network's faint answer made large enough to show in 8 bits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(x)
        return result * 20 + 0.5


@pytest.mark.parametrize(
    ("family", "shape", "multiple_px", "size"),
    [
        ("rrdb", rrdb_shape(scale=2, num_block=1, num_feat=8, num_grow_ch=4), 2, (91, 99)),
        ("rrdb", rrdb_shape(scale=1, num_block=1, num_feat=8, num_grow_ch=4), 4, (171, 175)),
        ("plain", plain_shape(scale=2, layers=3, features=8, fold=2), 2, (75, 83)),
    ],
    ids=["rrdb x2", "rrdb x1", "plain x2"],
)
def test_a_folding_network_tiles_exactly_on_sides_off_its_multiple(
    family: Family, shape: Shape, multiple_px: int, size: tuple[int, int]
) -> None:
    """RRDB of one block; its whole radius is affordable as halo."""
    torch.manual_seed(1)
    spec = spec_of("folding", family, shape)
    assert spec.multiple_px == multiple_px
    halo_px = spec.radius_px
    engine = open_torch(LoadedModel(spec, Loud(build_network(family, shape)), 1000), CPU)
    window_px = least_window_px(halo_px, multiple_px) + 8

    assert window_px < min(size), "several windows each way"
    assert largest_difference(engine, spec.native_scale, window_px, halo_px, size) == 0
    assert largest_difference(engine, spec.native_scale, 24, 0, size) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (7, 5), (8, 6)])
def test_a_folding_network_enlarges_pictures_of_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    shape = plain_shape(scale=2, layers=1, features=8, fold=2)
    network = build_network("plain", shape)
    engine = open_torch(LoadedModel(spec_of("folding", "plain", shape), network, 1000), CPU)
    noise = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    for picture in (noise, np.full((*size, 3), 77, np.uint8)):
        result = upscale_through(Image(picture), 2, engine).rgb
        assert result.shape == (2 * size[0], 2 * size[1], 3)
    assert (result == 77).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("span", span_shape(scale=2, features=8)),
        ("realplksr", realplksr_shape(2, 8, 2, 7, 4, norm="layer")),
    ],
    ids=["span", "realplksr"],
)
def test_a_community_network_tiles_exactly_with_its_radius_as_halo_and_not_with_less(
    family: Family, shape: Shape
) -> None:
    """In float64: in float32 sums in another order in another window differ by a level."""
    torch.manual_seed(1)
    spec = spec_of("theirs", family, shape)
    network = build_network(family, shape)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4 if weight.ndim == 4 else 1)  # so that far pixels count for levels
    exact = replace(CPU, dtype=torch.float64)
    engine = open_torch(LoadedModel(spec, network, 1000), exact)
    assert spec.halo_px == spec.radius_px
    window_px = least_window_px(spec.halo_px, 1) + 8
    assert window_px < min(SMALL) - 8, "several windows each way"
    assert largest_difference(engine, 2, window_px, spec.halo_px) == 0
    assert largest_difference(engine, 2, window_px, spec.halo_px - 1) > 8


def test_flat_colours_stay_exact_in_a_shorter_type(tmp_path: Path) -> None:
    """The shipped networks take float32 pixels though their weights are bfloat16."""
    engine = open_exact(tmp_path, "upscaled-x4-faithful", 4)
    model = LoadedModel(engine.info.spec, engine.exact_network, engine.info.window_px)
    short = open_torch(model, replace(CPU, dtype=torch.bfloat16))
    for level in (0, 1, 100, 128, 254, 255):
        (result,) = short.start([np.full((9, 9, 3), level, np.uint8)]).finish()
        assert (result == level).all()


@pytest.mark.slow
def test_an_official_compact_model_tiles_without_a_single_level_of_difference(
    tmp_path: Path, shared_dir: Path
) -> None:
    file = shared_dir / "weights" / "realesr-animevideov3.pth"
    ModelStore(tmp_path / "models").add("realesr-animevideov3", file)
    engine = open_exact(tmp_path, "realesr-animevideov3", 4)

    halo_px = engine.info.spec.halo_px
    for scale in (4, 2):
        assert largest_difference(engine, scale, 2 * halo_px + 16, halo_px) == 0
