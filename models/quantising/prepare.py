"""From a model's weights to its 8-bit file, proven."""

import hashlib
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelRefused
from models.graphs.layers import Layers
from models.graphs.nodes import LEVELS
from models.quantised import (
    QUANTISABLE,
    QuantisedRecord,
    quantised_path,
    record_path,
    serialise_layers,
)
from models.quantising.equalisation import equalise
from models.quantising.pictures import draw_pictures
from models.quantising.proof import find_fault, prove
from models.quantising.simulation import choose_ranges, freeze, simulate
from models.quantising.tuning import Progress, tune
from models.registry import Family, ModelSpec
from models.weights import load_network

Pixels = NDArray[np.uint8]
Say = Callable[[str], None]

SEED: Final = 1
RATES: Final[dict[Family, float]] = {"plain": 0.01, "srvgg": 0.003, "rrdb": 0.001}
CALIBRATED_RRDB: Final = 6
"""Pictures: one takes a large network seconds, and ranges are all that is taken from them."""


def quantise(
    spec: ModelSpec,
    weights: Path,
    pictures: Path | None,
    *,
    steps: int,
    say: Say,
    progress: Progress,
) -> QuantisedRecord:
    """Make the 8-bit file and its record beside `weights`, if they prove good enough.

    Args:
        pictures: a folder of photos to calibrate with, beside drawn pages and flat colours.
        steps: of tuning; 0 leaves weights as they are but for rounding.
        say: called with a line for people, now and then.
        progress: of the tuning, called with (steps done, steps in all).

    Raises:
        ModelRefused: networks of its family are not prepared in 8 bits, or the result is not near
            enough to float32's; nothing is written.
        WeightsError: the weights are damaged or not those of `spec`.
        ValueError, OSError: there are no readable pictures, or the files cannot be written.
    """
    if spec.family not in QUANTISABLE:
        raise ModelRefused(
            f"{spec.name}: {spec.family} networks are not prepared in 8 bits; "
            f"{', '.join(QUANTISABLE)} networks are"
        )
    network = load_network(spec, weights)
    calibrated, held_out = draw_pictures(pictures, SEED)
    say(f"{spec.name}: {len(calibrated)} pictures to calibrate with, {len(held_out)} to prove by")
    layers = quantise_network(
        spec.family, network, calibrated, steps=steps, seed=SEED, progress=progress
    )
    proof = prove(spec.family, spec.shape, layers, network, list(held_out))
    say(
        f"{spec.name}: {proof.psnr_db:.2f} dB against float32, largest error {proof.largest} of "
        f"255, flat colours within {proof.flat_largest}"
    )
    if fault := find_fault(proof):
        raise ModelRefused(f"{spec.name} is not usable in 8 bits: {fault}; nothing was written")
    data = serialise_layers(layers)
    record = QuantisedRecord(
        model=spec.name,
        weights_sha256=spec.sha256,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        proof=proof,
        versions={name: version(name) for name in ("openvino", "torch")},
    )
    _replace(quantised_path(weights), data)
    _replace(record_path(weights), (record.model_dump_json(indent=2) + "\n").encode())
    return record


def quantise_network(
    family: Family,
    network: nn.Module,
    calibrated: Pixels,
    *,
    steps: int,
    seed: int,
    progress: Progress,
) -> Layers:
    """The network in 8 bits, proven by nothing yet.

    Args:
        calibrated: uint8 `[N, h, w, 3]`; h and w at least `tuning.PATCH_PX` if it is tuned.
    """
    torch.manual_seed(seed)
    inputs = to_inputs(calibrated)
    if family == "rrdb":
        inputs = inputs[:: max(1, len(inputs) // CALIBRATED_RRDB)]
    simulation = simulate(network if family == "rrdb" else equalise(network, inputs))
    choose_ranges(simulation, inputs)
    if steps:
        rate = RATES[family]
        tune(simulation, network, inputs, steps=steps, rate=rate, seed=seed, progress=progress)
    return freeze(simulation)


def to_inputs(pictures: Pixels) -> Tensor:
    """uint8 `[N, h, w, 3]` to float32 `[N, 3, h, w]` in 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / LEVELS


def _replace(path: Path, data: bytes) -> None:
    """Write it whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    os.replace(partial, path)
