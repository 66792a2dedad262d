"""Models in 8 bits: a file of whole numbers and its record, beside the weights they came from.

    upscaled-x4.int8.safetensors    the layers
    upscaled-x4.int8.json           what they came from and how near they come to it

Loads no torch. Made by `quantising`; run by OpenVINO alone (`graphs`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from upscaled_models.backends.openvino.layers import Convolution, Layers, Quantisation
from upscaled_models.errors import WeightsError
from upscaled_models.families import Family
from upscaled_models.registry import ModelSpec

QUANTISABLE: Final[tuple[Family, ...]] = ("rrdb", "srvgg", "plain")
"""Families that can be prepared in 8 bits. SPAN and RealPLKSR multiply values by what they make of
them, which nothing here calibrates."""

Arrays = dict[str, NDArray[np.generic]]

_HASH = Field(pattern="^[0-9a-f]{64}$")

MIN_PSNR_DB: Final[Mapping[str, float]] = {"auto": 46.0, "fast": 40.0}
"""Decibels against float32 on pictures that were not calibrated with, by precision; 46 dB are a
root mean square error of 1.3 levels of 255, 40 dB one of 2.6."""

MAX_FLAT_LEVELS: Final = 4
"""Where float32 itself does not keep a colour flat."""

TRACKS: Final = ("clean", "jpeg", "camera")
"""Of inputs, each of which a proof by the truth must hold."""


@dataclass(frozen=True, slots=True)
class TruthBars:
    """How far a network that invents texture may be from float32 in 8 bits, track by track.

    mean_db: least mean against float32. psnr_db: how much further from the truth. niqe: difference
    to either side; None: not asked for. feature: how much further from the truth. smooth_share: see
    `TruthProof`. Nothing is asked of flat colours: such networks do not keep them in float32 either
    (x4plus: 111 levels off at the border of pure magenta), and colour correction, which follows,
    gives them back exactly.
    """

    mean_db: float
    psnr_db: float
    niqe: float | None
    feature: float
    smooth_share: float


TRUTH_BARS: Final[Mapping[str, TruthBars]] = {
    "auto": TruthBars(mean_db=39.0, psnr_db=0.1, niqe=0.15, feature=0.003, smooth_share=0.999),
    "fast": TruthBars(mean_db=37.0, psnr_db=0.2, niqe=None, feature=0.01, smooth_share=0.99),
}


class Pair(BaseModel):
    """A figure of the result in 8 bits, and of the same network's in float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    int8: float
    float32: float

    @property
    def rise(self) -> float:
        return self.int8 - self.float32


class TrackProof(BaseModel):
    """Results of one track (clean, jpeg, camera), means over pictures that have a truth.

    mean_db, worst_db: of 8 bits against float32. psnr_db: luma against the truth. niqe, feature:
    see `metrics` and `features`; None where the packages that they need were not installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: int
    mean_db: float
    worst_db: float
    psnr_db: Pair
    niqe: Pair | None
    feature: Pair | None


class TruthProof(BaseModel):
    """Results in 8 bits of a network that invents texture, judged by the truth.

    What such a network invents is chaotic: it may be as near to the truth, and as natural, though
    its pixels are others. smooth_share: of the values where float32 varies by less than 4 levels
    over 13x13 px, those within 2 levels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracks: dict[str, TrackProof]
    smooth_share: float

    @property
    def mean_db(self) -> float:
        """Against float32, over all pictures of all tracks."""
        count = sum(track.pictures for track in self.tracks.values())
        return sum(each.mean_db * each.pictures for each in self.tracks.values()) / count


class QuantisedProof(BaseModel):
    """The 8-bit result against the network's own in float32, in levels of 255 except `psnr_db`.

    pictures: how many were compared; none of them was calibrated with. flat_largest: the largest
    difference for 256 greys and 27 colours. are_flats_kept: those that float32 gives back exactly,
    8 bits do too. float_layers: convolutions that were left in floats. truth: of networks that
    invent texture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    psnr_db: float
    largest: int
    pictures: int
    flat_largest: int
    are_flats_kept: bool
    float_layers: list[str]
    truth: TruthProof | None = None


class QuantisedRecord(BaseModel):
    """What `NAME.int8.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights_sha256: str = _HASH
    sha256: str = _HASH
    size_bytes: int
    proof: QuantisedProof
    versions: dict[str, str]


def allowed_in(record: QuantisedRecord, precision: str) -> bool:
    """Whether a model in 8 bits may be chosen in `precision` ("auto" or "fast"), by its proof.

    The only place that decides it.
    """
    return not why_not(record.proof, precision)


def why_not(proof: QuantisedProof, precision: str) -> str:
    """Why a proof does not allow `precision` ("auto" or "fast"); empty if it does.

    Either the pixels are float32's, nearly; or, of a network that invents texture, the results are
    as natural and as near to the truth.
    """
    fault = _fault_of_pixels(proof, precision)
    if fault and proof.truth is not None:
        return _fault_by_truth(proof.truth, TRUTH_BARS[precision])
    return fault


def _fault_of_pixels(proof: QuantisedProof, precision: str) -> str:
    if not proof.are_flats_kept or proof.flat_largest > MAX_FLAT_LEVELS:
        return f"flat colours are off by up to {proof.flat_largest} levels"
    least = MIN_PSNR_DB[precision]
    if proof.psnr_db < least:
        return f"{proof.psnr_db:.1f} dB against float32, must be {least:.0f}"
    return ""


def _fault_by_truth(truth: TruthProof, bars: TruthBars) -> str:
    if truth.mean_db < bars.mean_db:
        return f"{truth.mean_db:.1f} dB against float32, must be {bars.mean_db:.0f}"
    if truth.smooth_share < bars.smooth_share:
        return f"{truth.smooth_share:.2%} of smooth areas are near, must be {bars.smooth_share:.1%}"
    for track in TRACKS:
        if track not in truth.tracks:
            return f"not compared with the truth on {track} inputs"
        if fault := _fault_of_track(truth.tracks[track], bars):
            return f"{track}: {fault}"
    return ""


def _fault_of_track(track: TrackProof, bars: TruthBars) -> str:
    if -track.psnr_db.rise > bars.psnr_db:
        return f"{-track.psnr_db.rise:.2f} dB further from the truth than float32"
    if track.feature is None:
        return "its feature distance to the truth was not measured"
    if track.feature.rise > bars.feature:
        return f"feature distance {track.feature.rise:.4f} above float32's"
    if bars.niqe is None:
        return ""
    if track.niqe is None:
        return "its NIQE was not measured"
    if abs(track.niqe.rise) > bars.niqe:
        return f"NIQE {track.niqe.rise:+.2f} from float32's"
    return ""


def quantised_path(weights: Path) -> Path:
    """Where the 8-bit file of a weights file belongs; its record lies beside it."""
    return weights.with_name(f"{weights.stem}.int8.safetensors")


def record_path(weights: Path) -> Path:
    return weights.with_name(f"{weights.stem}.int8.json")


def read_record(spec: ModelSpec, weights: Path) -> QuantisedRecord:
    """The record beside the weights of `spec`.

    Raises:
        WeightsError: it is not readable, or came from other weights; the text names the file.
    """
    path = record_path(weights)
    try:
        record = QuantisedRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "damaged"
        raise WeightsError(f"{path}: not a readable record of 8-bit weights: {reason}") from error
    if record.weights_sha256 != spec.sha256:
        raise WeightsError(
            f"{path}: was made from other weights than those of {spec.name}: from SHA-256 "
            f"{record.weights_sha256}, not {spec.sha256}; `upscaled models quantise {spec.name}` "
            "makes it anew"
        )
    return record


def read_quantised(spec: ModelSpec, weights: Path) -> Layers:
    """The 8-bit layers of `spec`, that lie beside its weights.

    Raises:
        WeightsError: file or record is missing, damaged, or not of these weights; named.
    """
    record = read_record(spec, weights)
    path = quantised_path(weights)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != record.sha256:
        raise WeightsError(f"{path}: SHA-256 is {found}, must be {record.sha256}")
    return parse_layers(data, path)


def serialise_layers(layers: Layers) -> bytes:
    """The bytes of an 8-bit file."""
    from safetensors.numpy import save

    data: bytes = save(_arrays_of(layers))
    return data


def digest_layers(layers: Layers) -> str:
    """SHA-256 of the layers' own values, in the order of their names, whatever keeps them."""
    digest = hashlib.sha256()
    for key, value in sorted(_arrays_of(layers).items()):
        digest.update(f"{key} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data)
    return digest.hexdigest()


def _arrays_of(layers: Layers) -> Arrays:
    arrays: Arrays = {f"{name}.slope": slope for name, slope in layers.slopes.items()}
    for name, layer in layers.convolutions.items():
        arrays[f"{name}.weight"] = layer.weight
        if layer.bias is not None:
            arrays[f"{name}.bias"] = layer.bias
        if layer.quantised is not None:
            arrays[f"{name}.scale"] = layer.quantised.weight_scale
            ends = (layer.quantised.low, layer.quantised.high)
            arrays[f"{name}.range"] = np.array(ends, dtype=np.float32)
            if layer.quantised.input_scale is not None:
                arrays[f"{name}.input_scale"] = layer.quantised.input_scale
    return {key: np.ascontiguousarray(value) for key, value in arrays.items()}


def parse_layers(data: bytes, path: Path) -> Layers:
    """The layers in an 8-bit file's bytes.

    Raises:
        WeightsError: not a file of layers; the text names `path`.
    """
    from safetensors.numpy import load

    try:
        arrays: Arrays = load(data)
        names = [key.removesuffix(".weight") for key in arrays if key.endswith(".weight")]
        return Layers(
            convolutions={name: _convolution(arrays, name) for name in names},
            slopes={
                key.removesuffix(".slope"): value.astype(np.float32)
                for key, value in arrays.items()
                if key.endswith(".slope")
            },
        )
    except Exception as error:
        raise WeightsError(f"{path}: not a file of 8-bit layers, or a damaged one") from error


def _convolution(arrays: Arrays, name: str) -> Convolution:
    weight = arrays[f"{name}.weight"]
    bias = arrays[f"{name}.bias"].astype(np.float32) if f"{name}.bias" in arrays else None
    if weight.dtype != np.int8:
        return Convolution(weight.astype(np.float32), bias)
    low, high = (float(end) for end in arrays[f"{name}.range"].astype(np.float32))
    scale = arrays[f"{name}.scale"].astype(np.float32)
    key = f"{name}.input_scale"
    input_scale = arrays[key].astype(np.float32) if key in arrays else None
    return Convolution(weight.astype(np.int8), bias, Quantisation(scale, low, high, input_scale))
