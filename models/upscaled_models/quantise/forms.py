"""Choose the layers of a large network that stay in floats: few at first, then the costliest.

x4plus with its own weights on four photographs (dB against float32, mean / worst; seconds for
256x256 on two cores with AVX-512 VNNI, where all in float32 takes 8.19):

    all in 8 bits                           37.8 / 34.1     2.12
    what follows the trunk in floats        40.1 / 34.7     2.67
    blocks 0 and 22 too                     42.0 / 36.9     3.14
    0, 16, 21, 22                           43.5 / 38.8     3.50
    0, 14, 15, 16, 21, 22                   44.4 / 40.2     4.02
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from torch import Tensor, nn

from upscaled_models.backends.openvino.layers import Floats, Layers
from upscaled_models.quantise.comparison import decibels, quantised_upscaler
from upscaled_models.quantise.levels import find_levels
from upscaled_models.quantise.rounding import InputLevels, is_among, round_layers
from upscaled_models.quantise.tracks import Pixels, Upscaler
from upscaled_models.registry import ModelSpec
from upscaled_models.weights import state_of

RANKED_PICTURES: Final = 2
BLOCK_STEP: Final = 2
MAX_FLOAT_BLOCKS: Final = 6
"""Most blocks in floats: with more, 8 bits save too little time."""


def find_forms(
    spec: ModelSpec,
    network: nn.Module,
    inputs: Tensor,
    pictures: Sequence[Pixels],
    expect: Upscaler,
    seed: int,
) -> Iterator[tuple[Sequence[str], Layers]]:
    """Yield forms of a network, the fastest first: what stays in floats (see `round_layers`), and
    the layers.

    Args:
        inputs: `[N, 3, h, w]` in 0..1, from which input levels are measured.
        pictures: uint8 `[h, w, 3]`, on which the costliest blocks are measured.
        expect: the network in float32.
    """
    family = spec.network
    first, tail = family.float_layer, family.tail_layers
    state = state_of(network)
    levels = find_levels(family, network, inputs, seed)
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]

    def form(*float_layers: str) -> tuple[Sequence[str], Layers]:
        return float_layers, round_layers(state, levels, float_layers)

    yield form(first)
    yield form(first, *tail)
    ranked = _rank_blocks(spec, state, levels, names, pictures[:RANKED_PICTURES], expect)
    for count in range(BLOCK_STEP, min(MAX_FLOAT_BLOCKS, len(ranked) - 1) + 1, BLOCK_STEP):
        yield form(first, *sorted(ranked[:count]), *tail)


def _rank_blocks(
    spec: ModelSpec,
    state: dict[str, Floats],
    levels: dict[str, InputLevels],
    names: Sequence[str],
    pictures: Sequence[Pixels],
    expect: Upscaler,
) -> list[str]:
    """Return the trunk's blocks, that first whose 8 bits alone change the result the most."""
    blocks = dict.fromkeys(block for name in names if (block := spec.network.block_of(name)))

    def distance(block: str) -> float:
        others = [name for name in names if not is_among(name, (block,))]
        upscale = quantised_upscaler(spec.family, spec.shape, round_layers(state, levels, others))
        return float(np.mean([decibels(upscale(each), expect(each)) for each in pictures]))

    return sorted(blocks, key=distance)
