"""The product's own way of an image against the published tool, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.networks.test_networks_published_tool import (
    Pixels,
    bring_into_range,
    photo_of,
    run_theirs,
)
from tests.reference.standins import PublishedRealEsrgan
from tests.service.opened import open_engine
from upscaled.config import Settings, load_settings
from upscaled.image.types import Image
from upscaled.upscale.loop import upscale_by_tiles
from upscaled.upscale.scheduler import Scheduler
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

pytestmark = pytest.mark.usefixtures("one_thread")

ANIMEVIDEO = next(spec for spec in official_models() if spec.name == "realesr-animevideov3")


def run_product(rgb: Pixels, scale: int, settings: Settings) -> tuple[Pixels, int]:
    """The upscaled picture and how many tiles it took."""
    with Scheduler() as scheduler, scheduler.open_stream(open_engine(settings, scale)) as stream:
        *_, last = upscale_by_tiles(Image(rgb), scale, stream)
    assert last.result is not None
    return np.asarray(last.result.rgb, np.uint8), last.total


def levels_apart(ours: Pixels, theirs: Pixels) -> int:
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.slow
def test_many_tiles_of_the_official_compact_model_are_the_published_tools_whole_image(
    published: PublishedRealEsrgan, animevideo_file: Path, tmp_path: Path
) -> None:
    settings = load_settings(
        {},
        data_dir=tmp_path,
        device="cpu",
        precision="exact",
        model_x4=ANIMEVIDEO.name,
        tile_window_px=64,
    )
    ModelStore(settings.models_dir).add(ANIMEVIDEO.name, animevideo_file)
    rgb = photo_of(91, 103)
    ours, tiles = run_product(rgb, 4, settings)
    assert tiles > 4
    assert levels_apart(ours, run_theirs(published, ANIMEVIDEO, animevideo_file, rgb)) <= 1


@pytest.mark.parametrize(("height_px", "width_px"), [(64, 64), (65, 67)])
def test_a_folding_model_on_even_and_odd_sides_is_the_published_tools_whole_image(
    height_px: int, width_px: int, published: PublishedRealEsrgan, tmp_path: Path
) -> None:
    """x2plus's kind, one block deep so that one window's halo is exact."""
    settings = load_settings(
        {}, data_dir=tmp_path, device="cpu", precision="exact", model_x2="folding"
    )
    rgb = photo_of(height_px, width_px)
    spec = add_folding_model(settings, photo_of(64, 64), tmp_path / "folding.pth")
    ours, _tiles = run_product(rgb, 2, settings)
    assert levels_apart(ours, run_theirs(published, spec, tmp_path / "folding.pth", rgb)) <= 1
    assert len(np.unique(ours)) > 100, "an image of few levels would agree by chance"


def add_folding_model(settings: Settings, sample: Pixels, file: Path) -> ModelSpec:
    torch.manual_seed(0)
    network = build_network("rrdb", rrdb_shape(scale=2, num_block=1, num_feat=16, num_grow_ch=8))
    bring_into_range(network, sample)
    torch.save({"params_ema": network.state_dict()}, file)
    return ModelStore(settings.models_dir).add("folding", file)
