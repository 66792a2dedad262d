"""Models in 8 bits: a file of whole numbers and its record, beside the weights they came from.

    upscaled-x4.int8.safetensors    the layers
    upscaled-x4.int8.json           what they came from and how near they come to it

Loads no torch. Made by `models.quantising`; run by OpenVINO alone (`models.graphs`).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import WeightsError
from models.graphs.layers import Convolution, Layers, Quantisation
from models.registry import Family, ModelSpec

QUANTISABLE: Final[tuple[Family, ...]] = ("rrdb", "srvgg", "plain")
"""Families that can be prepared in 8 bits. SPAN and RealPLKSR multiply values by what they make of
them, which nothing here calibrates."""

Arrays = dict[str, NDArray[np.generic]]

_HASH = Field(pattern="^[0-9a-f]{64}$")

MIN_PSNR_DB: Final[Mapping[str, float]] = {"auto": 46.0, "fast": 40.0}
"""Decibels against float32 on pictures that were not calibrated with, by precision; 46 dB are a
root mean square error of 1.3 levels of 255, 40 dB one of 2.6."""


class QuantisedProof(BaseModel):
    """The 8-bit result against the network's own in float32, in levels of 255 except `psnr_db`.

    pictures: how many were compared; none of them was calibrated with. flat_largest: the largest
    difference for 256 greys and 27 colours. are_flats_kept: those that float32 gives back exactly,
    8 bits do too. float_layers: convolutions that were left in floats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    psnr_db: float
    largest: int
    pictures: int
    flat_largest: int
    are_flats_kept: bool
    float_layers: list[str]


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

    The only place that decides it; a machine's own check then only guards against a backend that
    computes something else there.
    """
    proof = record.proof
    return proof.are_flats_kept and proof.psnr_db >= MIN_PSNR_DB[precision]


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

    arrays: Arrays = {f"{name}.slope": slope for name, slope in layers.slopes.items()}
    for name, layer in layers.convolutions.items():
        arrays[f"{name}.weight"] = layer.weight
        if layer.bias is not None:
            arrays[f"{name}.bias"] = layer.bias
        if layer.quantised is not None:
            arrays[f"{name}.scale"] = layer.quantised.weight_scale
            ends = (layer.quantised.low, layer.quantised.high)
            arrays[f"{name}.range"] = np.array(ends, dtype=np.float32)
    data: bytes = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
    return data


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
    return Convolution(weight.astype(np.int8), bias, Quantisation(scale, low, high))
