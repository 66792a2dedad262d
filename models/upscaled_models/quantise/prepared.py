"""The forms of a model in 8 bits: its own file, or what a shipped recipe makes of its weights.

A recipe says how an official model is rounded to 8 bits, without holding its weights:

    recipes/NAME.json           of which weights, which layers stay in floats, and each form's proof
    recipes/NAME.safetensors    the input levels of every layer: kilobytes

Applying one takes about a second for the largest network, so nothing is stored: layers are made
each time that an engine is opened. A damaged recipe is refused by `WeightsError`. Loads no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from upscaled_models.backends.openvino.layers import Floats, Layers
from upscaled_models.errors import WeightsError
from upscaled_models.quantise.files import (
    digest_layers,
    quantised_path,
    read_quantised,
    read_record,
)
from upscaled_models.quantise.record import MeasuredLayers
from upscaled_models.quantise.rounding import InputLevels, cut_to_half, round_layers
from upscaled_models.registry import ModelSpec

RECIPES_DIR: Final = Path(__file__).with_name("recipes")

State = Mapping[str, Floats]


class RecipeForm(MeasuredLayers):
    """One form of a model in 8 bits, in a recipe's file.

    float_layers: see `quantise.rounding.round_layers`. sha256: of the layers that the recipe makes
    (`quantise.files.digest_layers`).
    """

    float_layers: list[str]


class RecipeFile(BaseModel):
    """The content of `NAME.json`; `weights` are the SHA-256 of the files that the recipe is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: list[str]
    forms: list[RecipeForm]


@dataclass(frozen=True, slots=True)
class PreparedForm:
    """One form of a model in 8 bits that can run here.

    read: returns the layers; its argument reads the model's float32 weights, from either of its
    files. Raises `WeightsError` where the file or the recipe is damaged, or the recipe makes other
    layers than the proven ones.
    """

    record: MeasuredLayers
    read: Callable[[Callable[[], State]], Layers]


def find_prepared(spec: ModelSpec, weights: Path) -> list[PreparedForm]:
    """Return every form of the model whose weights are at `weights`, the fastest first.

    A file that `upscaled models quantise` made here comes before the shipped recipe.
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
