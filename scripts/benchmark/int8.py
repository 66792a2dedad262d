"""8 bits whatever their picture is worth: how fast such a network would be, and no more.

Ranges come from pictures, and nothing is tuned. What the service runs in 8 bits is a file that was
tuned and proven.
"""

from dataclasses import replace

import numpy as np
import torch

from scripts.benchmark.contestant import Absent
from scripts.benchmark.pictures import make_pixels
from upscaled.config import Settings
from upscaled.upscale.engines import choose_device, choose_model, choose_window_px
from upscaled_models.backends.base import Engine, LoadedModel
from upscaled_models.backends.openvino.engine import open_openvino
from upscaled_models.backends.torch.engine import open_torch
from upscaled_models.quantise.prepare import quantise_network
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

PICTURES = 6
SIDE_PX = 48


def open_int8(settings: Settings, scale: int) -> Engine:
    """The settings' model for `scale` in 8 bits, in its usual window, proven by nothing.

    Raises:
        Absent: not on this device, or OpenVINO is not installed.
    """
    device = choose_device(settings)
    if device.torch_device.type != "cpu":
        raise Absent("8 bits run on CPUs only")
    store = ModelStore(settings.models_dir)
    spec, path = choose_model(settings, scale, store)
    network = load_network(spec, path)
    pictures = np.stack([make_pixels(SIDE_PX + at, SIDE_PX)[-SIDE_PX:] for at in range(PICTURES)])
    layers = quantise_network(
        spec.family, network, pictures, steps=0, seed=0, progress=lambda done, total: None
    )
    as_fast = settings.model_copy(update={"precision": "fast", "tuning": True})
    window_px = choose_window_px(as_fast, spec, is_cuda=False)
    model = LoadedModel(spec, network, window_px, weights=path)
    exact = open_torch(model, replace(device, dtype=torch.float32))
    try:
        return open_openvino(model, exact, layers, "int8")
    except ImportError as error:
        raise Absent(str(error)) from error
