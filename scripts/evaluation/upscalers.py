"""Upscalers to measure: models by name or file, and the classic kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from upscaled_models.errors import WeightsError
from upscaled_models.families import FAMILIES
from upscaled_models.quantise.tracks import Small
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore
from upscaled_models.weights import (
    build_network,
    load_network,
    read_state,
    recognise_file,
    state_of,
)

if TYPE_CHECKING:
    from upscaled_models.backends.openvino.layers import Layers

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class FileUpscaler:
    """An upscaler that reads the file itself, because its compression matters."""

    upscale_file: Callable[[bytes], Pixels]


AnyUpscaler = Upscaler | FileUpscaler
"""From a small picture, `[h, w, 3]` uint8 RGB, or its file, to `[h * scale, w * scale, 3]`."""

KERNELS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def run(upscaler: AnyUpscaler, small: Small) -> Pixels:
    """Upscale one small picture."""
    if isinstance(upscaler, FileUpscaler):
        return upscaler.upscale_file(small.file)
    return upscaler(small.pixels)


def open_network(name_or_file: str, models_dir: Path) -> tuple[nn.Module, int]:
    """Open a model's network in eval mode, with its native scale; an existing path wins.

    Raises `UnknownModel` or `WeightsError` (models), or `FileNotFoundError` for a known model
    whose file is not here.
    """
    path = Path(name_or_file)
    if path.is_file():
        family, shape = recognise_file(path)
        network = build_network(family, shape)
        network.load_state_dict(read_state(path.read_bytes(), path))
        return network.eval().requires_grad_(False), FAMILIES[family].native_scale(shape)
    store = ModelStore(models_dir)
    spec = store.find(name_or_file)
    found = store.path(spec)
    if found is None:
        raise FileNotFoundError(f"{name_or_file}: its file is not here; fetch it first")
    return load_network(spec, found), spec.native_scale


def network_upscaler(network: nn.Module, native_scale: int, scale: int) -> Upscaler:
    """Upscale whole pictures in float32; a larger native scale is shrunk by area to `scale`."""
    fold = int(getattr(network, "fold", 1))

    @torch.inference_mode()
    def upscale(small: Pixels) -> Pixels:
        x = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
        y = network(x.contiguous(memory_format=torch.channels_last))
        y = torch.nn.functional.avg_pool2d(y, native_scale // scale)
        levels = (y[0].clamp(0, 1) * 255).round().to(torch.uint8)
        return np.asarray(levels.permute(1, 2, 0).contiguous().numpy())

    return on_whole_squares(upscale, fold, scale)


def on_whole_squares(upscale: Upscaler, fold: int, scale: int) -> Upscaler:
    """Repeat a picture's last row and column for a network that folds squares of `fold` pixels."""
    if fold == 1:
        return upscale

    def upscale_padded(small: Pixels) -> Pixels:
        height, width = small.shape[:2]
        padded = np.pad(small, ((0, -height % fold), (0, -width % fold), (0, 0)), "edge")
        return upscale(padded)[: height * scale, : width * scale]

    return upscale_padded


def graph_upscaler(name: str, models_dir: Path, scale: int) -> Upscaler:
    """Upscale whole pictures in float32 by OpenVINO, in half of torch's time for RRDB.

    Raises `UnknownModel`, or `FileNotFoundError` for a model whose file is not here.
    """
    from upscaled_models.backends.openvino.layers import layers_of

    store = ModelStore(models_dir)
    spec = store.find(name)
    found = store.path(spec)
    if found is None:
        raise FileNotFoundError(f"{name}: its file is not here; fetch it first")
    state = load_network(spec, found).state_dict()
    return _run_graph(spec, layers_of({key: value.numpy() for key, value in state.items()}), scale)


def int8_upscaler(name: str, models_dir: Path, scale: int) -> Upscaler:
    """Upscale whole pictures in 8 bits by OpenVINO; raises `WeightsError` without a form."""
    from upscaled_models.quantise.files import find_prepared

    store = ModelStore(models_dir)
    spec = store.find(name)
    forms = find_prepared(spec, store.target(spec))
    if not forms:
        raise WeightsError(f"{name} is not in 8 bits here")
    layers = forms[-1].read(lambda: state_of(load_network(spec, store.target(spec))))
    return _run_graph(spec, layers, scale)


def _run_graph(spec: ModelSpec, layers: "Layers", scale: int) -> Upscaler:
    from upscaled_models.backends.openvino.graph import build_graph, finish_window
    from upscaled_models.backends.openvino.runtime import compile_graph

    graph = build_graph(spec.family, spec.shape, layers)
    compiled = compile_graph(graph, precision="f32", threads=torch.get_num_threads())
    reduce = spec.native_scale // scale

    def upscale(small: Pixels) -> Pixels:
        return finish_window(compiled(small[None])[0][0], small, spec.family, reduce)

    return on_whole_squares(upscale, spec.multiple_px, scale)


def kernel_upscaler(kernel: Image.Resampling, scale: int) -> Upscaler:
    """Upscale by a classic interpolation."""

    def upscale(small: Pixels) -> Pixels:
        height, width = small.shape[:2]
        size = (width * scale, height * scale)
        return np.asarray(Image.fromarray(small).resize(size, kernel))

    return upscale
