"""Files of a model in 8 bits: whole numbers and their record, beside the weights they came from.

    upscaled-x4.int8.safetensors    the layers
    upscaled-x4.int8.json           the record: which weights they came from, and their proof

`WeightsError` names a file that is missing, damaged or of other weights. Loads no torch.
`quantise.prepare` writes them; OpenVINO alone runs them.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from upscaled_models.backends.openvino.layers import Convolution, Layers, Quantisation
from upscaled_models.errors import WeightsError
from upscaled_models.quantise.record import QuantisedRecord
from upscaled_models.registry import ModelSpec

Arrays = dict[str, NDArray[np.generic]]


def quantised_path(weights: Path) -> Path:
    """Return where the 8-bit file of a weights file belongs; its record lies beside it."""
    return weights.with_name(f"{weights.stem}.int8.safetensors")


def record_path(weights: Path) -> Path:
    return weights.with_name(f"{weights.stem}.int8.json")


def read_record(spec: ModelSpec, weights: Path) -> QuantisedRecord:
    """Read the record beside the weights of `spec`."""
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
    """Read the 8-bit layers beside the weights of `spec`."""
    record = read_record(spec, weights)
    path = quantised_path(weights)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != record.sha256:
        raise WeightsError(f"{path}: SHA-256 is {sha256}, must be {record.sha256}")
    return parse_layers(data, path)


def serialise_layers(layers: Layers) -> bytes:
    """Return the bytes of an 8-bit file."""
    from safetensors.numpy import save

    data: bytes = save(_arrays_of(layers))
    return data


def digest_layers(layers: Layers) -> str:
    """Return the SHA-256 of the layers' values in the order of their names, in any file format."""
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
    """Return the layers in the bytes of an 8-bit file."""
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
