"""The product's own way from a decoded image to a finished one, as a contestant."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from scripts.benchmark.contestant import Entry
from scripts.benchmark.flops import count_gflop
from scripts.benchmark.pictures import Pixels, make_pixels
from upscaled.config import Settings, load_settings
from upscaled.image.output import decide_output
from upscaled.image.types import Image
from upscaled.upscale.core import Core
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
        self._core = self._opened.enter_context(open_entry(entry))
        self._pixels = make_pixels(entry.height_px, entry.width_px)
        self.label = self._core.label(entry.model)
        network = build_network(spec.family, spec.shape)
        self.gflop = count_gflop(network, entry.height_px, entry.width_px)

    def run(self) -> Pixels:
        return upscale(self._core, self._pixels, self._scale)[0]


def find_spec(entry: Entry) -> ModelSpec:
    return ModelStore(Path(entry.data_dir) / "models").find(entry.model)


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


@contextmanager
def open_entry(entry: Entry, tile_window_px: int = 0) -> Iterator[Core]:
    """Open the core with this contestant's model alone."""
    scales = (find_spec(entry).native_scale,)
    with open_core(settings_of(entry, tile_window_px), scales=scales, decoders=0) as core:
        yield core


def upscale(core: Core, rgb: Pixels, scale: int) -> tuple[Pixels, int]:
    """Upscale RGB pixels; return the result and the number of tiles it was computed in."""
    tiles = 0

    def count(_done: int, total: int) -> None:
        nonlocal tiles
        tiles = total

    image = Image(rgb=rgb)
    output = decide_output(image, scale, keeps_depth=True, max_side_px=MAX_RESULT_SIDE_PX)
    result = core.upscale_image(image, scale, output, on_tile=count)
    return np.asarray(result.rgb, np.uint8), tiles
