"""The product's own way from a decoded image to a finished one, as a contestant."""

import copy
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.benchmark.contestant import Entry
from scripts.benchmark.pictures import Pixels, make_pixels
from upscaled.config import Settings, load_settings
from upscaled.image.output import decide_output
from upscaled.image.types import Image
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import MAX_RESULT_SIDE_PX
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network


class Ours:
    """The core as a worker opens it, with one model, and one image after another."""

    def __init__(self, entry: Entry) -> None:
        spec = find_spec(entry)
        self._scale = spec.native_scale
        self._opened = ExitStack()
        core = open_core(settings_of(entry), scales=(spec.native_scale,), decoders=0)
        self._core = self._opened.enter_context(core)
        self._image = Image(rgb=make_pixels(entry.height_px, entry.width_px))
        self.label = self._core.label(entry.model)
        self.gflop = count_gflop(build_network(spec.family, spec.shape), entry)

    def run(self) -> Pixels:
        scale = self._scale
        output = decide_output(self._image, scale, keeps_depth=True, max_side_px=MAX_RESULT_SIDE_PX)
        return np.asarray(self._core.upscale_image(self._image, scale, output).rgb, np.uint8)


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


def settings_of(entry: Entry) -> Settings:
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
        colour_lock=False,
        temper="off",
        **{f"model_x{scale}": entry.model},
    )
