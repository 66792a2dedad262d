"""The forms of a model in 8 bits: its own file, or what a shipped recipe makes of its weights.

A recipe says how an official model is rounded to 8 bits, without holding its weights:

    recipes/NAME.json           of which weights, which layers stay in floats, and each form's proof
    recipes/NAME.safetensors    the input levels of every layer: kilobytes

Applying one takes about a second for the largest network, so nothing is stored: layers are made
each time that an engine is opened. Loads no torch.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from upscaled_models.backends.openvino.layers import Floats, Layers
from upscaled_models.errors import WeightsError
from upscaled_models.quantise.files import (
    digest_layers,
    quantised_path,
    read_quantised,
    read_record,
)
from upscaled_models.quantise.record import QuantisedProof, QuantisedRecord
from upscaled_models.quantise.rounding import InputLevels, cut_to_half, round_layers
from upscaled_models.registry import ModelSpec

RECIPES_DIR: Final = Path(__file__).with_name("recipes")

State = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class PreparedForm:
    """One form of a model in 8 bits that can run here.

    Attributes:
        read: returns the layers; its argument reads the model's float32 weights. Raises
            `WeightsError` where the file is damaged, or the recipe makes other layers than the
            proven ones.
    """

    record: QuantisedRecord
    read: Callable[[Callable[[], State]], Layers]


def find_prepared(spec: ModelSpec, weights: Path) -> list[PreparedForm]:
    """Return every form of the model whose weights are at `weights`, the fastest first.

    A file that `upscaled models quantise` made here comes before the shipped recipe.

    Raises:
        WeightsError: a record or a recipe is damaged, or the record is of other weights.
    """
    if quantised_path(weights).is_file():
        record = read_record(spec, weights)
        return [PreparedForm(record, lambda _: read_quantised(spec, weights))]
    return [PreparedForm(each.record, each.prepare) for each in find_recipes(spec)]


class RecipeForm(BaseModel):
    """One form of a model in 8 bits, in a recipe's file.

    Attributes:
        float_layers: see `quantise.rounding.round_layers`.
        sha256: the digest of the layers that the recipe makes (`quantise.files.digest_layers`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    float_layers: list[str]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int
    proof: QuantisedProof
    versions: dict[str, str]


class RecipeFile(BaseModel):
    """The content of `NAME.json`; `weights` are the SHA-256 of the files that the recipe is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: list[str]
    forms: list[RecipeForm]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One form of a model in 8 bits, and how to make it from the model's weights."""

    record: QuantisedRecord
    levels: Path
    float_layers: Sequence[str]

    def prepare(self, read_state: Callable[[], State]) -> Layers:
        """Make the layers in 8 bits.

        Args:
            read_state: reads the model's float32 weights, from either of its files.

        Raises:
            WeightsError: the recipe is damaged, or makes other layers of these weights than the
                proven ones.
        """
        state = cut_to_half(read_state())
        try:
            layers = round_layers(state, read_levels(self.levels), self.float_layers)
        except KeyError as error:
            raise WeightsError(f"{self.levels}: not a recipe of {self.record.model}") from error
        digest = digest_layers(layers)
        if digest != self.record.sha256:
            raise WeightsError(
                f"{self.levels}: the recipe of {self.record.model} makes other layers of these "
                f"weights than it was proven with: SHA-256 {digest}, must be {self.record.sha256}"
            )
        return layers


def find_recipes(spec: ModelSpec, folder: Path = RECIPES_DIR) -> list[Recipe]:
    """Return every form of a model's recipe, the fastest first; empty if its file has no recipe.

    Raises:
        WeightsError: the recipe's file is damaged.
    """
    path = folder / f"{spec.name}.json"
    if spec.source != "official" or not path.is_file():
        return []
    try:
        file = RecipeFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{path}: not a readable recipe") from error
    if spec.sha256 not in file.weights:
        return []
    return [
        Recipe(
            QuantisedRecord(
                model=spec.name,
                weights_sha256=spec.sha256,
                sha256=form.sha256,
                size_bytes=form.size_bytes,
                proof=form.proof,
                versions=form.versions,
            ),
            path.with_suffix(".safetensors"),
            form.float_layers,
        )
        for form in file.forms
    ]


def read_levels(path: Path) -> dict[str, InputLevels]:
    """Read the input levels in a recipe's file, by group of layers.

    Raises:
        WeightsError: the file cannot be read.
    """
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
        names = [key.removesuffix(".scale") for key in arrays if key.endswith(".scale")]
        ends = {name: arrays[f"{name}.range"].astype(np.float32) for name in names}
        return {
            name: InputLevels(
                arrays[f"{name}.scale"].astype(np.float16),
                float(ends[name][0]),
                float(ends[name][1]),
            )
            for name in names
        }
    except Exception as error:
        raise WeightsError(f"{path}: not a file of input levels, or a damaged one") from error


def serialise_levels(levels: Mapping[str, InputLevels]) -> bytes:
    """Return the bytes of a recipe's file of input levels."""
    from safetensors.numpy import save

    arrays = {f"{name}.scale": each.scale for name, each in levels.items()} | {
        f"{name}.range": np.array([each.low, each.high], np.float32)
        for name, each in levels.items()
    }
    data: bytes = save(arrays)
    return data


def write_recipe(
    spec: ModelSpec,
    levels: Mapping[str, InputLevels],
    forms: Sequence[RecipeForm],
    folder: Path,
    *,
    weights: Sequence[str],
) -> None:
    """Write the two files of a recipe; `forms` lists the fastest first."""
    file = RecipeFile(model=spec.name, weights=list(weights), forms=list(forms))
    (folder / f"{spec.name}.safetensors").write_bytes(serialise_levels(levels))
    text = json.dumps(file.model_dump(), indent=1)
    (folder / f"{spec.name}.json").write_text(text + "\n")
