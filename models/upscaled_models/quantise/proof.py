"""Compare 8-bit layers with float32 of their own network, computed by OpenVINO as in production.

The largest differences count as much as the mean: a white that turns grey is no small error.
"""

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from upscaled_models.accuracy import psnr_db
from upscaled_models.backends.openvino.graph import build_parts, finish_window
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.backends.openvino.runtime import choose_tail_precision, compile_graph
from upscaled_models.families import Family, Shape
from upscaled_models.quantise.pictures import FLAT_COLOURS, flat_pictures
from upscaled_models.quantise.record import QuantisedProof, TruthProof

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]

FLAT_SIDE_PX: Final = 16


def prove(
    layers: Layers,
    upscale: Upscaler,
    expect: Upscaler,
    pictures: Iterable[Pixels],
    truth: TruthProof | None = None,
) -> QuantisedProof:
    """Compare on `pictures` (uint8 `[h, w, 3]`) unused by calibration, and on flat colours.

    Args:
        layers: the layers that `upscale` runs.
        upscale, expect: the network in 8 bits and in float32, whole pictures.
        truth: the comparison with the truth, for a network that invents texture.
    """
    errors = [upscale(picture).astype(int) - expect(picture) for picture in pictures]
    square = float(np.mean([np.square(error).mean() for error in errors]))
    flat_largest, are_flats_kept = _compare_flats(upscale, expect)
    return QuantisedProof(
        psnr_db=round(psnr_db(square), 2),
        largest=int(max(np.abs(error).max() for error in errors)),
        pictures=len(errors),
        flat_largest=flat_largest,
        are_flats_kept=are_flats_kept,
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


def _compare_flats(upscale: Upscaler, expect: Upscaler) -> tuple[int, bool]:
    """Return the largest difference, and whether colours that float32 keeps exactly are kept."""
    greys = tuple((level, level, level) for level in range(LEVELS + 1))
    largest, are_kept = 0, True
    for flat in flat_pictures((*greys, *FLAT_COLOURS), FLAT_SIDE_PX):
        expected = expect(flat)
        difference = upscale(flat).astype(int) - expected
        largest = max(largest, int(np.abs(difference).max()))
        if difference.any() and (expected == flat[0, 0]).all():
            are_kept = False
    return largest, are_kept
