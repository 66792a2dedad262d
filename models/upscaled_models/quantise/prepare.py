"""From a model's weights to its 8-bit file, proven."""

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.errors import ModelRefused
from upscaled_models.families import Family
from upscaled_models.quantise.equalisation import equalise
from upscaled_models.quantise.forms import find_forms
from upscaled_models.quantise.levels import find_levels
from upscaled_models.quantise.pictures import draw_pictures, draw_truths
from upscaled_models.quantise.proof import float_upscaler, prove, quantised_upscaler
from upscaled_models.quantise.record import (
    QUANTISABLE,
    QuantisedProof,
    QuantisedRecord,
    allowed_in,
    quantised_path,
    record_path,
    serialise_layers,
    why_not,
)
from upscaled_models.quantise.rounding import round_layers
from upscaled_models.quantise.simulation import choose_ranges, freeze, simulate
from upscaled_models.quantise.truth import TruthJudge, make_samples
from upscaled_models.quantise.tuning import Progress, tune
from upscaled_models.registry import ModelSpec
from upscaled_models.weights import load_network, state_of

Pixels = NDArray[np.uint8]
Say = Callable[[str], None]

SEED: Final = 1
RATES: Final[dict[Family, float]] = {"plain": 0.01, "srvgg": 0.003}
CALIBRATED_RRDB: Final = 12
"""Pictures: one takes a large network seconds, and ranges are all that is taken from them."""
CALIBRATED_RRDB_PX: Final = 64
PRECISIONS: Final = ("auto", "fast")


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
        pictures: a folder of photos to calibrate with, beside drawn pages and flat colours. Some
            are kept back: a network that invents texture is proven by them.
        steps: of tuning; 0 leaves weights as they are but for rounding. RRDB networks are not
            tuned: their channels are scaled instead, and layers are left in floats.
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
    if spec.family == "rrdb":
        truths = draw_truths(pictures) if pictures else []
        layers, proof = _quantise_large(spec, network, calibrated, held_out, truths, say)
    else:
        layers = quantise_network(
            spec.family, network, calibrated, steps=steps, seed=SEED, progress=progress
        )
        upscale = quantised_upscaler(spec.family, spec.shape, layers)
        proof = prove(layers, upscale, float_upscaler(network), list(held_out))
        say(f"{spec.name}: {_describe(proof)}")
    data = serialise_layers(layers)
    record = QuantisedRecord(
        model=spec.name,
        weights_sha256=spec.sha256,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        proof=proof,
        versions={name: version(name) for name in ("openvino", "torch")},
    )
    allowed = [precision for precision in PRECISIONS if allowed_in(record, precision)]
    if not allowed:
        fault = why_not(proof, PRECISIONS[-1])
        raise ModelRefused(f"{spec.name} is not usable in 8 bits: {fault}; nothing was written")
    say(f"{spec.name}: proven for {' and '.join(allowed)}")
    _replace(quantised_path(weights), data)
    _replace(record_path(weights), (record.model_dump_json(indent=2) + "\n").encode())
    return record


def _quantise_large(
    spec: ModelSpec,
    network: nn.Module,
    calibrated: Pixels,
    held_out: Pixels,
    truths: Sequence[Pixels],
    say: Say,
) -> tuple[Layers, QuantisedProof]:
    """The fastest form that is proven for `auto`; else the first that is for `fast`; else the last.

    Forms leave ever more layers in floats (`upscaled_models.quantise.forms`).
    """
    expect = float_upscaler(network)
    judge = None
    if truths:
        say(f"{spec.name}: {len(truths)} photographs in float32, clean, jpeg and camera each")
        judge = TruthJudge(make_samples(truths, spec.native_scale, expect))
        for reason in judge.missing:
            say(f"{spec.name}: a part of the proof is not made: {reason}")
    tried: list[tuple[Layers, QuantisedProof]] = []
    for form in find_forms(spec, network, _calibration(calibrated), list(held_out), expect, SEED):
        upscale = quantised_upscaler(spec.family, spec.shape, form.layers)
        truth = judge.judge(upscale) if judge else None
        proof = prove(form.layers, upscale, expect, list(held_out), truth)
        say(f"{spec.name}, {form.describe()}: {_describe(proof)}")
        tried.append((form.layers, proof))
        if not why_not(proof, "auto"):
            return tried[-1]
    return next((each for each in tried if not why_not(each[1], "fast")), tried[-1])


def _describe(proof: QuantisedProof) -> str:
    text = (
        f"{proof.psnr_db:.2f} dB against float32, largest error {proof.largest} of 255, flat "
        f"colours within {proof.flat_largest}"
    )
    if proof.truth is None:
        return text
    tracks = ", ".join(
        f"{name} {track.mean_db:.1f} dB" for name, track in proof.truth.tracks.items()
    )
    return f"{text}; photographs: {tracks}"


def quantise_network(
    family: Family,
    network: nn.Module,
    calibrated: Pixels,
    *,
    steps: int,
    seed: int,
    progress: Progress,
) -> Layers:
    """The network in 8 bits, every layer of it, proven by nothing yet.

    Args:
        calibrated: uint8 `[N, h, w, 3]`; h and w at least `tuning.PATCH_PX` if it is tuned.
        steps: of tuning, which RRDB networks do not take.
    """
    torch.manual_seed(seed)
    if family == "rrdb":
        levels = find_levels(network, _calibration(calibrated), seed)
        return round_layers(state_of(network), levels, ())
    inputs = to_inputs(calibrated)
    simulation = simulate(equalise(network, inputs))
    choose_ranges(simulation, inputs)
    if steps:
        rate = RATES[family]
        tune(simulation, network, inputs, steps=steps, rate=rate, seed=seed, progress=progress)
    return freeze(simulation)


def _calibration(calibrated: Pixels) -> Tensor:
    """A few corners of the pictures: a large network takes seconds for each."""
    few = calibrated[:: max(1, len(calibrated) // CALIBRATED_RRDB)]
    return to_inputs(few[:, :CALIBRATED_RRDB_PX, :CALIBRATED_RRDB_PX])


def to_inputs(pictures: Pixels) -> Tensor:
    """uint8 `[N, h, w, 3]` to float32 `[N, 3, h, w]` in 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / LEVELS


def _replace(path: Path, data: bytes) -> None:
    """Write it whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    os.replace(partial, path)
