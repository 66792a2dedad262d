"""Compare 8-bit layers with float32 of their own network, computed by OpenVINO as in production.

The largest differences count as much as the mean: a white that turns grey is no small error.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from torch import nn

from upscaled_models import accuracy
from upscaled_models.backends.openvino.graph import build_parts, finish_window
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.backends.openvino.runtime import choose_tail_precision, compile_graph
from upscaled_models.families import Family, Shape
from upscaled_models.quantise.pictures import FLAT_COLOURS, flat_pictures
from upscaled_models.quantise.record import QuantisedAccuracy, TruthAccuracy
from upscaled_models.quantise.tracks import Pixels, Upscaler

FLAT_SIDE_PX: Final = 16


def measure_quantised(
    layers: Layers,
    upscale: Upscaler,
    expect: Upscaler,
    pictures: Iterable[Pixels],
    truth: TruthAccuracy | None = None,
) -> QuantisedAccuracy:
    """Compare on `pictures` (uint8 `[h, w, 3]`) unused by calibration, and on flat colours.

    Args:
        layers: the layers that `upscale` runs.
        upscale, expect: the network in 8 bits and in float32, whole pictures.
        truth: the comparison with the truth, for a network that invents texture.
    """
    greys = tuple((level, level, level) for level in range(LEVELS + 1))
    flats = flat_pictures((*greys, *FLAT_COLOURS), FLAT_SIDE_PX)
    sources = list(pictures)
    (expected, expected_flats), (got, got_flats) = (
        ([run(each) for each in sources], [run(each) for each in flats])
        for run in (expect, upscale)
    )
    found = accuracy.measure_accuracy(expected, got, flats, expected_flats, got_flats)
    return QuantisedAccuracy(
        psnr_db=round(found.psnr_db, 2),
        largest=found.largest,
        pictures=len(sources),
        flat_largest=found.flat_largest or 0,
        are_flats_kept=found.is_flat_kept,
        float_layers=[
            name for name, layer in layers.convolutions.items() if layer.quantised is None
        ],
        truth=truth,
    )


def quantised_upscaler(family: Family, shape: Shape, layers: Layers) -> Upscaler:
    """Return a function for whole pictures, uint8 `[h, w, 3]` to uint8 at the native scale."""
    threads = torch.get_num_threads()
    graphs = build_parts(family, shape, layers)
    hints = ["f32", choose_tail_precision()] if len(graphs) > 1 else ["f32"]
    steps = [
        compile_graph(graph, precision=hint, threads=threads)
        for graph, hint in zip(graphs, hints, strict=True)
    ]

    def upscale(picture: Pixels) -> Pixels:
        made = picture[None]
        for step in steps:
            made = step(made)[0]
        return finish_window(made[0], picture, family, 1)

    return upscale


def float_upscaler(network: nn.Module) -> Upscaler:
    """Return a function for whole pictures in float32, which computes each picture once."""
    known: dict[tuple[tuple[int, ...], bytes], Pixels] = {}

    @torch.inference_mode()
    def upscale(picture: Pixels) -> Pixels:
        key = (picture.shape, picture.tobytes())
        if key not in known:
            x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / LEVELS
            y = network(x.contiguous(memory_format=torch.channels_last))
            levels = (y[0].clamp(0, 1) * LEVELS + 0.5).to(torch.uint8)
            known[key] = np.asarray(levels.permute(1, 2, 0).contiguous().numpy())
        return known[key]

    return upscale
