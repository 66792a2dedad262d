"""How near 8-bit layers come to float32 of their own network, computed by OpenVINO as they will be.

The largest differences count as much as the mean: a white that is grey is no small error.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.graphs.build import build_graph
from models.graphs.finishing import finish_window
from models.graphs.layers import Layers
from models.graphs.nodes import LEVELS
from models.graphs.runtime import compile_graph
from models.quantised import QuantisedProof
from models.quantising.pictures import FLAT_COLOURS, flat_pictures
from models.registry import Family, Shape

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]

MIN_PSNR_DB: Final = 40.0
MAX_FLAT_LEVELS: Final = 4
"""Where float32 itself does not keep a colour flat."""

FLAT_SIDE_PX: Final = 16
MAX_PSNR_DB: Final = 120.0


def prove(
    family: Family, shape: Shape, layers: Layers, network: nn.Module, pictures: Iterable[Pixels]
) -> QuantisedProof:
    """Compare on `pictures` (uint8 `[h, w, 3]`) that were not calibrated with, and on flat ones."""
    upscale = quantised_upscaler(family, shape, layers)
    expect = _float_upscaler(network)
    errors = [upscale(picture).astype(int) - expect(picture) for picture in pictures]
    square = float(np.mean([np.square(error).mean() for error in errors]))
    flat_largest, are_flats_kept = _compare_flats(upscale, expect)
    return QuantisedProof(
        psnr_db=round(10 * math.log10(LEVELS**2 / square), 2) if square else MAX_PSNR_DB,
        largest=int(max(np.abs(error).max() for error in errors)),
        pictures=len(errors),
        flat_largest=flat_largest,
        are_flats_kept=are_flats_kept,
        float_layers=[
            name for name, layer in layers.convolutions.items() if layer.quantised is None
        ],
    )


def find_fault(proof: QuantisedProof) -> str:
    """Why these layers may not be used; empty if they may."""
    if not proof.are_flats_kept or proof.flat_largest > MAX_FLAT_LEVELS:
        return f"flat colours are off by up to {proof.flat_largest} levels"
    if proof.psnr_db < MIN_PSNR_DB:
        return f"{proof.psnr_db:.1f} dB against float32, must be {MIN_PSNR_DB:.0f}"
    return ""


def quantised_upscaler(family: Family, shape: Shape, layers: Layers) -> Upscaler:
    """Whole pictures, untiled, uint8 `[h, w, 3]` to uint8 at the network's own scale."""
    compiled = compile_graph(
        build_graph(family, shape, layers), precision="f32", threads=torch.get_num_threads()
    )

    def upscale(picture: Pixels) -> Pixels:
        result = compiled(picture[None])[0][0]
        return finish_window(result, picture, family, 1)

    return upscale


def _float_upscaler(network: nn.Module) -> Upscaler:
    @torch.inference_mode()
    def upscale(picture: Pixels) -> Pixels:
        x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / LEVELS
        levels = (network(x)[0].clamp(0, 1) * LEVELS + 0.5).to(torch.uint8)
        return np.asarray(levels.permute(1, 2, 0).contiguous().numpy())

    return upscale


def _compare_flats(upscale: Upscaler, expect: Upscaler) -> tuple[int, bool]:
    """The largest difference, and whether what float32 keeps exactly is kept."""
    greys = tuple((level, level, level) for level in range(LEVELS + 1))
    largest, are_kept = 0, True
    for flat in flat_pictures((*greys, *FLAT_COLOURS), FLAT_SIDE_PX):
        got, expected = upscale(flat), expect(flat)
        difference = int(np.abs(got.astype(int) - expected).max())
        largest = max(largest, difference)
        if difference and (expected == flat[0, 0]).all():
            are_kept = False
    return largest, are_kept
