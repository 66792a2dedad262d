"""The product's own way from a decoded image to a finished one, as a contestant; part `seams`."""

import copy
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Figures
from scripts.benchmark.pictures import Pixels, make_pixels
from scripts.benchmark.weights import (
    ANIME,
    X4PLUS,
    X4PLUS_ANIME,
    Weights,
    add_general,
    add_official,
)
from upscaled.config import Settings, load_settings
from upscaled.image.output import decide_output
from upscaled.image.types import Image
from upscaled.upscale.core import Core
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import MAX_RESULT_SIDE_PX
from upscaled_models.backends.base import least_window_px, round_up
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

TINY_CORE_PX = 16


class Ours:
    """The core as a worker opens it, with one model, and one image after another."""

    def __init__(self, entry: Entry) -> None:
        spec = find_spec(entry)
        self._scale = spec.native_scale
        self._opened = ExitStack()
        self._core = self._opened.enter_context(open_entry(entry))
        self._pixels = make_pixels(entry.height_px, entry.width_px)
        self.label = self._core.label(entry.model)
        self.gflop = count_gflop(build_network(spec.family, spec.shape), entry)

    def run(self) -> Pixels:
        return upscale(self._core, self._pixels, self._scale)[0]


def find_spec(entry: Entry) -> ModelSpec:
    return ModelStore(Path(entry.data_dir) / "models").find(entry.model)


def count_gflop(network: nn.Module, entry: Entry) -> float:
    """Count 10^9 multiplications and additions in the convolutions over an entry's picture.

    The tensors hold no values: nothing is computed.
    """
    hollow = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hollow(torch.empty(1, 3, entry.height_px, entry.width_px, device="meta"))
    flop: int = counter.get_total_flops()
    return flop / 1e9


def settings_of(entry: Entry, tile_window_px: int = 0) -> Settings:
    """Return the settings of a service that has this contestant's model for the model's scale.

    Nothing of the environment: two runs of one command measure the same. Colours are not corrected
    and nothing is tempered: no other contestant does that, and the pictures are compared.
    """
    scale = find_spec(entry).native_scale
    return load_settings(
        {},
        data_dir=Path(entry.data_dir),
        device=entry.device,
        precision=entry.precision,
        tuning=entry.is_tuned,
        tile_window_px=tile_window_px,
        colour_lock=False,
        temper="off",
        **{f"model_x{scale}": entry.model},
    )


def open_entry(entry: Entry, tile_window_px: int = 0) -> AbstractContextManager[Core]:
    """Open the core with this contestant's model alone."""
    scales = (find_spec(entry).native_scale,)
    return open_core(settings_of(entry, tile_window_px), scales=scales, decoders=0)


def upscale(core: Core, rgb: Pixels, scale: int) -> tuple[Pixels, int]:
    """Upscale RGB pixels; return the result and the number of tiles it was computed in."""
    totals: list[int] = []
    image = Image(rgb=rgb)
    output = decide_output(image, scale, keeps_depth=True, max_side_px=MAX_RESULT_SIDE_PX)
    result = core.upscale_image(image, scale, output, on_tile=lambda _, all_: totals.append(all_))
    return np.asarray(result.rgb, np.uint8), totals[-1]


def measure_seams(data_dir: Path, effort: Effort, device: str) -> Figures:
    """Measure each model in float32: sizes in pixels, halo, tiles, differences in levels of 255."""
    models: list[Weights | None] = [
        Weights(name, "shipped") for name in ("upscaled-x2", "upscaled-x4-faithful")
    ]
    if not effort.is_tiny:
        models.append(Weights("upscaled-x4", "shipped"))
        models.append(add_general(data_dir))
        models += [add_official(data_dir, name) for name in (ANIME, X4PLUS, X4PLUS_ANIME)]
    rows: Figures = {}
    for weights in filter(None, models):
        entry = Entry("ours:Ours", str(data_dir), weights.model, "exact", device, is_tuned=False)
        rows[weights.model] = {"weights": weights.origin} | _measure_one(entry, effort)
    return rows


def _measure_one(entry: Entry, effort: Effort) -> Figures:
    """Compare the tiles that the service takes (the smallest that make sense, if tiny) with one."""
    spec = find_spec(entry)
    height_px, width_px = effort.rrdb_seams_px if spec.family == "rrdb" else effort.seams_px
    least_px = least_window_px(spec.halo_px, spec.multiple_px) + TINY_CORE_PX
    whole_px = round_up(max(height_px, width_px), spec.multiple_px)
    pixels = make_pixels(height_px, width_px)
    with open_entry(entry, least_px if effort.is_tiny else 0) as core:
        tiled, tiles = upscale(core, pixels, spec.native_scale)
    with open_entry(entry, whole_px) as core:
        untiled, tiles_untiled = upscale(core, pixels, spec.native_scale)
    if tiles_untiled != 1 or tiles < 2:
        raise AssertionError(f"{entry.model}: {tiles} tiles against {tiles_untiled}")
    levels = cv2.absdiff(tiled, untiled)
    return {
        "halo_px": spec.halo_px,
        "tiles": tiles,
        "largest_levels": int(levels.max()),
        "mean_levels": round(float(levels.mean()), 6),
    }
