"""Files of a model in 8 bits: its own 8-bit layers, or a shipped recipe that makes them here.

    NAME.int8.safetensors       the layers, as `quantise.prepare` writes them
    NAME.int8.json              the record: of which weights, and their proof
    recipes/NAME.json           of which weights, which layers stay in floats, and each form's proof
    recipes/NAME.safetensors    the input levels of every layer: kilobytes

A recipe says how an official model is rounded. That is done whenever it is opened, in about a
second. `WeightsError` names a file that is missing, damaged or of other weights. Loads no torch.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from upscaled_models.backends.openvino.layers import Convolution, Floats, Layers, Quantisation
from upscaled_models.errors import WeightsError
from upscaled_models.files import read_checked
from upscaled_models.quantise.record import MeasuredLayers, QuantisedRecord
from upscaled_models.quantise.rounding import InputLevels, cut_to_half, round_layers
from upscaled_models.registry import ModelSpec

RECIPES_DIR: Final = Path(__file__).with_name("recipes")

Arrays = dict[str, NDArray[np.generic]]
State = Mapping[str, Floats]


class RecipeForm(MeasuredLayers):
    """One form in a recipe's file; `float_layers` as of `round_layers`, `sha256` of its layers."""

    float_layers: list[str]


class RecipeFile(BaseModel, frozen=True, extra="forbid"):
    """The content of `NAME.json`; `weights` are the SHA-256 of the files that the recipe is for."""

    model: str
    weights: list[str]
    forms: list[RecipeForm]


@dataclass(frozen=True, slots=True)
class PreparedForm:
    """One form of a model in 8 bits that can run here.

    read: returns the layers; its argument reads the model's float32 weights. Raises `WeightsError`
    where the file or the recipe is damaged, or makes other layers than the proven ones.
    """

    record: MeasuredLayers
    read: Callable[[Callable[[], State]], Layers]


def find_prepared(spec: ModelSpec, weights: Path) -> list[PreparedForm]:
    """Return every form of the model whose weights are at `weights`, the fastest first.

    A file that `upscaled models quantise` made here replaces the shipped recipe.
    """
    if quantised_path(weights).is_file():
        record = read_record(spec, weights)
        return [PreparedForm(record, lambda _: read_quantised(spec, weights))]
    return find_recipes(spec)


def find_recipes(spec: ModelSpec, folder: Path = RECIPES_DIR) -> list[PreparedForm]:
    """Return every form of a model's recipe, the fastest first; empty if its file has no recipe."""
    path = folder / f"{spec.name}.json"
    if spec.source != "official" or not path.is_file():
        return []
    try:
        file = RecipeFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{path}: not a readable recipe") from error
    if spec.sha256 not in file.weights:
        return []
    levels = path.with_suffix(".safetensors")
    return [PreparedForm(form, partial(_apply, spec.name, levels, form)) for form in file.forms]


def _apply(model: str, levels: Path, form: RecipeForm, read_state: Callable[[], State]) -> Layers:
    """Make the layers of a recipe's form; refuse any but the proven ones."""
    state = cut_to_half(read_state())
    try:
        layers = round_layers(state, read_levels(levels), form.float_layers)
    except KeyError as error:
        raise WeightsError(f"{levels}: not a recipe of {model}") from error
    digest = digest_layers(layers)
    if digest != form.sha256:
        raise WeightsError(
            f"{levels}: the recipe of {model} makes other layers of these weights than it was "
            f"proven with: SHA-256 {digest}, must be {form.sha256}"
        )
    return layers


def read_levels(path: Path) -> dict[str, InputLevels]:
    """Read the input levels in a recipe's file, by group of layers."""
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
        levels = {}
        for name in (key.removesuffix(".scale") for key in arrays if key.endswith(".scale")):
            low, high = (float(end) for end in arrays[f"{name}.range"].astype(np.float32))
            levels[name] = InputLevels(arrays[f"{name}.scale"].astype(np.float16), low, high)
        return levels
    except Exception as error:
        raise WeightsError(f"{path}: not a file of input levels, or a damaged one") from error


def quantised_path(weights: Path) -> Path:
    """Return where the 8-bit file of a weights file belongs; its record lies beside it."""
    return weights.with_name(f"{weights.stem}.int8.safetensors")


def record_path(weights: Path) -> Path:
    return weights.with_name(f"{weights.stem}.int8.json")


def read_record(spec: ModelSpec, weights: Path) -> QuantisedRecord:
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
    record = read_record(spec, weights)
    path = quantised_path(weights)
    return parse_layers(read_checked(path, record.sha256), path)


def serialise_layers(layers: Layers) -> bytes:
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
