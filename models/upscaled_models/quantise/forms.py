"""Prepare a large network in 8 bits: measure its input levels, and choose what stays in floats.

A form is one choice of layers that stay in floats: few in the first, then also the blocks that lose
most. x4plus on four photographs (dB against float32, mean / worst; seconds for 256x256 on two cores
with AVX-512 VNNI, in float32 8.19):

    all in 8 bits                           37.8 / 34.1     2.12
    what follows the trunk in floats        40.1 / 34.7     2.67
    blocks 0 and 22 too                     42.0 / 36.9     3.14
    0, 14, 15, 16, 21, 22                   44.4 / 40.2     4.02

All channels of an input share 256 levels. Each is divided by a scale first, and the weights that
read it multiplied by it (SmoothQuant, arXiv:2211.10438), which costs nothing where the input is
another 8-bit convolution's output. Without scales x4plus is 34.0 dB from float32.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upscaled_models.backends.openvino.layers import Floats, Layers
from upscaled_models.families import NetworkFamily
from upscaled_models.quantise.comparison import decibels, quantised_upscaler
from upscaled_models.quantise.rounding import InputLevels, is_among, round_layers
from upscaled_models.quantise.simulation import LAST_LEVEL, watch_inputs
from upscaled_models.quantise.tracks import Pixels, Upscaler
from upscaled_models.registry import ModelSpec
from upscaled_models.weights import state_of

Values = NDArray[np.float32]

RANKED_PICTURES: Final = 2
BLOCK_STEP: Final = 2
MAX_FLOAT_BLOCKS: Final = 6
"""Most blocks in floats: with more, 8 bits save too little time."""

SAMPLES_PER_PICTURE: Final = 100
"""Sampled pixels of one picture, with all their channels."""

LARGEST_SHARE: Final = 0.9995
"""The size of a channel is this quantile of its values: a single spike would leave the rest few
levels."""

SHRINKS: Final = np.geomspace(1.0, 0.1, 12)


def find_forms(
    spec: ModelSpec,
    network: nn.Module,
    inputs: Tensor,
    pictures: Sequence[Pixels],
    expect: Upscaler,
    seed: int,
) -> Iterator[tuple[Sequence[str], Layers]]:
    """Yield what stays in floats and the layers of a network's forms, the fastest first.

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


def find_levels(
    family: NetworkFamily, network: nn.Module, inputs: Tensor, seed: int
) -> dict[str, InputLevels]:
    """Measure the input levels of every group of layers on `inputs`, `[N, 3, h, w]` in 0..1."""
    groups: dict[str, list[nn.Conv2d]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            groups.setdefault(family.input_group(name), []).append(module)
    widest = [max(group, key=lambda each: each.in_channels) for group in groups.values()]
    samples = _sample(network, widest, inputs, seed)
    return {
        name: _choose_levels(read, [each.weight.numpy() for each in group])
        for (name, group), read in zip(groups.items(), samples, strict=True)
    }


@torch.inference_mode()
def _sample(
    network: nn.Module, readers: Sequence[nn.Conv2d], inputs: Tensor, seed: int
) -> list[Values]:
    """Return samples of the inputs of the convolutions, `[channels, samples]` each."""
    generator = torch.Generator().manual_seed(seed)
    seen: list[list[Tensor]] = [[] for _ in readers]

    def see(reader: int, read: Tensor) -> None:
        flat = read[0].flatten(1)
        at = torch.randint(0, flat.shape[1], (SAMPLES_PER_PICTURE,), generator=generator)
        seen[reader].append(flat[:, at].clone())

    pictures = (one[None].contiguous(memory_format=torch.channels_last) for one in inputs)
    watch_inputs(network, readers, pictures, see)
    return [torch.cat(each, 1).float().numpy() for each in seen]


def _choose_levels(samples: Values, weights: list[Floats]) -> InputLevels:
    """Return scales halfway between equal inputs and equal weights, and the best range."""
    size = np.maximum(np.quantile(np.abs(samples), LARGEST_SHARE, axis=1), 1e-4)
    read, energy = np.zeros(len(size)), np.zeros(len(size))
    for weight in weights:
        count = weight.shape[1]
        read[:count] = np.maximum(read[:count], np.abs(weight).max((0, 2, 3)))
        energy[:count] += np.square(weight).sum((0, 2, 3))
    scale = np.sqrt(size / np.maximum(read, 1e-5))
    half = (scale / np.exp(np.log(scale).mean())).clip(1e-3, 1e3).astype(np.float16)
    divisor = half.astype(np.float32)[:, None]
    low, high = _choose_range(samples / divisor, np.square(divisor) * energy[:, None])
    return InputLevels(half, low, high)


def _choose_range(values: Values, importance: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range of least square error, by the `importance` `[channels, 1]` of channels."""
    least, most = min(0.0, float(values.min())), max(0.0, float(values.max()))
    tried = [
        _try_range(values, importance, least * below, most * above)
        for below in (SHRINKS if least < 0 else (1.0,))
        for above in SHRINKS
    ]
    _, low, high = min(tried)
    return low, high


def _try_range(
    values: Values, importance: NDArray[np.float64], low: float, high: float
) -> tuple[float, float, float]:
    """Return the error, and the ends of the range with 0 on a level."""
    step = max((high - low) / LAST_LEVEL, 1e-8)
    zero = round(-low / step)
    levels = np.clip(np.rint(values / np.float32(step)) + zero, 0, LAST_LEVEL) - zero
    error = float((np.square(levels * np.float32(step) - values) * importance).mean())
    ends = np.float32(-zero * step), np.float32((LAST_LEVEL - zero) * step)
    return error, float(ends[0]), float(ends[1])
