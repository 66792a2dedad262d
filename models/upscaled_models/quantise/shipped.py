"""Find the shipped recipe of a model, and prepare its layers in 8 bits from weights that are here.

Takes about a second for the largest network, so that nothing is stored: layers are prepared each
time that an engine is opened. Loads no torch.
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
from upscaled_models.quantise.record import QuantisedProof, QuantisedRecord, digest_layers
from upscaled_models.quantise.rounding import InputLevels, cut_to_half, round_layers
from upscaled_models.registry import ModelSpec

RECIPES_DIR: Final = Path(__file__).with_name("recipes")

State = Mapping[str, Floats]


class RecipeForm(BaseModel):
    """One form of a model in 8 bits.

    float_layers: see `upscaled_models.quantise.rounding.round_layers`. sha256: of what comes out
    (`upscaled_models.quantise.record.digest_layers`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    float_layers: list[str]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int
    proof: QuantisedProof
    versions: dict[str, str]


class RecipeFile(BaseModel):
    """What `NAME.json` says: `weights` are the SHA-256 of the files that it is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: list[str]
    forms: list[RecipeForm]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A form of a model in 8 bits, and how to make it from the model's weights."""

    record: QuantisedRecord
    levels: Path
    float_layers: Sequence[str]

    def prepare(self, read_state: Callable[[], State]) -> Layers:
        """The layers in 8 bits.

        Args:
            read_state: gives the model's float32 weights, of either of its files.

        Raises:
            WeightsError: the recipe is damaged, or makes other layers of these weights than those
                it was proven with.
        """
        state = cut_to_half(read_state())
        try:
            layers = round_layers(state, read_levels(self.levels), self.float_layers)
        except KeyError as error:
            raise WeightsError(f"{self.levels}: not a recipe of {self.record.model}") from error
        found = digest_layers(layers)
        if found != self.record.sha256:
            raise WeightsError(
                f"{self.levels}: the recipe of {self.record.model} makes other layers of these "
                f"weights than it was proven with: SHA-256 {found}, must be {self.record.sha256}"
            )
        return layers


def find_recipes(spec: ModelSpec, folder: Path = RECIPES_DIR) -> list[Recipe]:
    """Every form of a model's recipe, the fastest first; none where none is shipped for its file.

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
    """The input levels in a recipe's file, by group of layers.

    Raises:
        WeightsError: it cannot be read.
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
    """The bytes of a recipe's file of input levels."""
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
    """Write a recipe's two files. `forms`: the fastest first."""
    file = RecipeFile(model=spec.name, weights=list(weights), forms=list(forms))
    (folder / f"{spec.name}.safetensors").write_bytes(serialise_levels(levels))
    text = json.dumps(file.model_dump(), indent=1)
    (folder / f"{spec.name}.json").write_text(text + "\n")
