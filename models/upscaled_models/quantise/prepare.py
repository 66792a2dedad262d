"""Quantise a model: from its weights to its 8-bit file and the proof recorded with it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.errors import ModelRefused
from upscaled_models.families import FAMILIES, Family
from upscaled_models.fetch import ReportProgress
from upscaled_models.files import write_atomically
from upscaled_models.quantise.comparison import (
    TruthComparison,
    float_upscaler,
    make_samples,
    measure_quantised,
    quantised_upscaler,
)
from upscaled_models.quantise.files import quantised_path, record_path, serialise_layers
from upscaled_models.quantise.forms import find_forms
from upscaled_models.quantise.pictures import PHOTOS, PHOTOS_TO_TUNE, draw_pictures, draw_truths
from upscaled_models.quantise.record import QuantisedAccuracy, QuantisedRecord, allowed_in, why_not
from upscaled_models.quantise.simulation import choose_ranges, equalise, freeze, simulate
from upscaled_models.quantise.tracks import Pixels, Upscaler
from upscaled_models.quantise.tuning import tune
from upscaled_models.registry import ModelSpec
from upscaled_models.weights import load_network

Say = Callable[[str], None]

SEED: Final = 1
CALIBRATED: Final = 30
"""Pictures from which ranges are measured, of a network that is tuned afterwards."""
CALIBRATED_UNTUNED: Final = 12
"""The same for a large network, which is not tuned: each picture takes it seconds."""
CALIBRATED_PX: Final = 64
PRECISIONS: Final = ("auto", "fast")


def quantise(
    spec: ModelSpec,
    weights: Path,
    pictures: Path | None,
    *,
    steps: int,
    say: Say,
    progress: ReportProgress | None = None,
    tuned: Layers | None = None,
) -> QuantisedRecord:
    """Write the 8-bit file and its record beside `weights`, if the layers are near enough.

    Args:
        pictures: a folder of photos to calibrate with, beside drawn pages and flat colours. Some
            are held out: a network that invents texture is proven by them.
        steps: of tuning; 0 only rounds. RRDB networks are not tuned: their channels are scaled.
        say: called with lines for people.
        progress: called with (steps done, steps in all) of the tuning.
        tuned: all layers in 8 bits, tuned before; they are proven as they are.

    Raises:
        ModelRefused: this family is not prepared in 8 bits, or the result is too far from float32.
        WeightsError: the weights are damaged or not those of `spec`.
        ValueError, OSError: there are no readable pictures, or the files cannot be written.
    """
    if not spec.network.is_quantisable:
        possible = ", ".join(name for name, family in FAMILIES.items() if family.is_quantisable)
        raise ModelRefused(
            f"{spec.name}: {spec.family} networks are not prepared in 8 bits; "
            f"{possible} networks are"
        )
    network = load_network(spec, weights)
    photos = PHOTOS_TO_TUNE if spec.network.tuning_rate else PHOTOS
    calibrated, held_out = draw_pictures(pictures, SEED, photos)
    say(
        f"{spec.name}: {len(calibrated)} pictures to calibrate with, {len(held_out)} to verify with"
    )
    truths = draw_truths(pictures) if pictures else []
    prover = _Prover(spec, float_upscaler(network), list(held_out), truths, say)
    if spec.network.tuning_rate:
        layers = tuned or tune_network(
            spec.family, network, calibrated, steps=steps, seed=SEED, progress=progress
        )
        proof = prover.prove_tuned(layers)
    else:
        layers, proof = prover.quantise_large(network, calibrated)
    return _write_proven(spec, weights, layers, proof, say)


@dataclass(frozen=True, slots=True)
class _Prover:
    """Compares layers in 8 bits with float32 (`expect`), and says how near they are.

    held_out: pictures that calibration does not use. truths: photographs to compare results with.
    """

    spec: ModelSpec
    expect: Upscaler
    held_out: Sequence[Pixels]
    truths: Sequence[Pixels]
    say: Say

    def prove_tuned(self, layers: Layers) -> QuantisedAccuracy:
        """Compare tuned layers by pixels first, and by the truth where those differ.

        A network that keeps flat colours is proven by pixels alone: nothing corrects its colours.
        """
        upscale = quantised_upscaler(self.spec.family, self.spec.shape, layers)
        proof = measure_quantised(layers, upscale, self.expect, self.held_out)
        self.say(f"{self.spec.name}: {_describe(proof)}")
        if not why_not(proof, "auto") or self.spec.keeps_colour or not self.truths:
            return proof
        proof = proof.model_copy(update={"truth": self._compare().compare(upscale)})
        self.say(f"{self.spec.name}: {_describe(proof)}")
        return proof

    def quantise_large(
        self, network: nn.Module, calibrated: Pixels
    ) -> tuple[Layers, QuantisedAccuracy]:
        """Return the fastest form that is proven for `auto`, else for `fast`, else the last one."""
        comparison = self._compare() if self.truths else None
        tried: list[tuple[Layers, QuantisedAccuracy]] = []
        inputs = to_inputs(_cut_few(calibrated, CALIBRATED_UNTUNED))
        for float_layers, layers in find_forms(
            self.spec, network, inputs, self.held_out, self.expect, SEED
        ):
            upscale = quantised_upscaler(self.spec.family, self.spec.shape, layers)
            truth = comparison.compare(upscale) if comparison else None
            proof = measure_quantised(layers, upscale, self.expect, self.held_out, truth)
            self.say(f"{self.spec.name}, {', '.join(float_layers)} in floats: {_describe(proof)}")
            tried.append((layers, proof))
            if not why_not(proof, "auto"):
                return tried[-1]
        return next((each for each in tried if not why_not(each[1], "fast")), tried[-1])

    def _compare(self) -> TruthComparison:
        count = len(self.truths)
        self.say(f"{self.spec.name}: {count} photographs in float32, clean, jpeg and camera each")
        comparison = TruthComparison(make_samples(self.truths, self.spec.native_scale, self.expect))
        for reason in comparison.missing:
            self.say(f"{self.spec.name}: a part of the proof is left out: {reason}")
        return comparison


def _write_proven(
    spec: ModelSpec, weights: Path, layers: Layers, proof: QuantisedAccuracy, say: Say
) -> QuantisedRecord:
    """Write the 8-bit file and its record, unless no precision allows the layers."""
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
    write_atomically(quantised_path(weights), data)
    write_atomically(record_path(weights), (record.model_dump_json(indent=2) + "\n").encode())
    return record


def _describe(proof: QuantisedAccuracy) -> str:
    text = (
        f"{proof.psnr_db:.2f} dB against float32, largest error {proof.largest} of 255, flat "
        f"colours within {proof.flat_largest}"
    )
    tracks = proof.truth.tracks.items() if proof.truth else ()
    listed = ", ".join(f"{name} {track.mean_db:.1f} dB" for name, track in tracks)
    return f"{text}; photographs: {listed}" if listed else text


def tune_network(
    family: Family,
    network: nn.Module,
    calibrated: Pixels,
    *,
    steps: int,
    seed: int,
    progress: ReportProgress | None = None,
) -> Layers:
    """Return every layer of a compact or plain network in 8 bits, not compared with float32 yet.

    `calibrated` is uint8 `[N, h, w, 3]`; h and w at least `tuning.PATCH_PX`.
    """
    torch.manual_seed(seed)
    rate = FAMILIES[family].tuning_rate
    inputs = to_inputs(calibrated)
    few = to_inputs(_cut_few(calibrated, CALIBRATED))
    simulation = simulate(equalise(network, few, FAMILIES[family].equalised_share))
    choose_ranges(simulation, few)
    if steps:
        tune(simulation, network, inputs, steps=steps, rate=rate, seed=seed, progress=progress)
    return freeze(simulation)


def _cut_few(pictures: Pixels, count: int) -> Pixels:
    """Return the corners of `count` pictures or somewhat more, chosen at even distances."""
    return pictures[:: max(1, len(pictures) // count), :CALIBRATED_PX, :CALIBRATED_PX]


def to_inputs(pictures: Pixels) -> Tensor:
    """Convert uint8 `[N, h, w, 3]` to float32 `[N, 3, h, w]` in 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / LEVELS
