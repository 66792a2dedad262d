"""The product's own way from a decoded image to a finished one, as a contestant."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from scripts.benchmark.contestant import Entry, peak_of_cuda_mib
from scripts.benchmark.flops import Shape, count_gflop
from scripts.benchmark.pictures import Pixels, make_pixels
from scripts.benchmark.weights import is_random
from upscaled.config import Settings, load_settings
from upscaled.image.types import Image
from upscaled.upscale.core import Core, open_core
from upscaled.upscale.engines import open_model
from upscaled.upscale.post_process.sanity_check import is_plausible
from upscaled.upscale.post_process.steps import (
    NO_POST_PROCESSING,
    PostProcessing,
    choose_post_processing,
)
from upscaled_models.backends.base import Engine, Started, Window
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network


class Ours:
    """The core as a worker opens it, and the loop over one image."""

    def __init__(self, entry: Entry) -> None:
        settings = settings_of(entry)
        spec = ModelStore(settings.models_dir).find(entry.model)
        self._device = entry.device
        self._scale = spec.native_scale
        self._spec = spec
        self._watched = WatchedEngine(open_model(settings, entry.model))
        self._open = ExitStack()
        self._upscaler = self._open.enter_context(
            open_upscaler_with(self._watched, settings, self._scale)
        )
        steps = choose_post_processing(spec, settings)
        self._care = replace(steps, check=_believe) if is_random(entry.model) else steps
        self._image = Image(rgb=make_pixels(entry.height_px, entry.width_px))

    @property
    def label(self) -> str:
        return self._watched.info.label

    def run(self) -> Pixels:
        self._watched.windows.clear()
        return upscale_once(self._image.rgb, self._scale, self._upscaler, self._care)

    def gflop(self) -> float:
        network = build_network(self._spec.family, self._spec.shape)
        return count_gflop(network, self._watched.windows)

    def peak_device_mib(self) -> float | None:
        return peak_of_cuda_mib(self._device)


class WatchedEngine:
    """An engine that also counts the windows it is given, by shape."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.info = engine.info
        self.windows: Counter[Shape] = Counter()

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        height, width, _ = windows[0].shape
        self.windows[height, width] += len(windows)
        return self._engine.start(windows, reduce, is_exact=is_exact)


def _believe(source: Window, result: Window) -> bool:
    """Look as the service does, and believe: what random weights make resembles nothing."""
    is_plausible(source, result)
    return True


def open_upscaler_with(
    engine: object, settings: Settings, scale: int
) -> AbstractContextManager[Core]:
    """The core around an engine that stands for the settings' model of a scale."""
    return open_core(
        settings, scales=(scale,), open_engine=lambda _: cast(Engine, engine), decoders=0
    )


def upscale_once(
    rgb: Window, scale: int, upscaler: Core, steps: PostProcessing = NO_POST_PROCESSING
) -> Pixels:
    """RGB `[H, W, 3]` to `[H * scale, W * scale, 3]` through the loop over one image."""
    result = upscaler.upscale_pixels(Image(rgb=rgb), scale, post_processing=steps)
    return np.asarray(result.rgb, np.uint8)


def settings_of(entry: Entry, **more: object) -> Settings:
    """The settings of a service that has this contestant's model for its own scale.

    Nothing of the environment: two runs of one command measure the same. Colours are not locked:
    no other contestant does that, and the picture compared is the network's own.
    """
    data_dir = Path(entry.data_dir)
    spec = ModelStore(data_dir / "models").find(entry.model)
    return load_settings(
        {},
        data_dir=data_dir,
        device=entry.device,
        precision=entry.precision,
        threads=entry.threads,
        tuning=entry.is_tuned,
        colour_lock=False,
        **{f"model_x{spec.native_scale}": entry.model, **more},
    )
