"""A model's forms in 8 bits that can be run here: its own file, or else what a recipe makes.

Loads no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.quantise.record import (
    QuantisedRecord,
    quantised_path,
    read_quantised,
    read_record,
)
from upscaled_models.quantise.shipped import State, find_recipes
from upscaled_models.registry import ModelSpec


@dataclass(frozen=True, slots=True)
class PreparedForm:
    """One form of a model in 8 bits.

    read: its layers, given what reads the model's float32 weights. Raises `WeightsError` where the
    file is damaged, or the recipe makes other layers than those that were proven.
    """

    record: QuantisedRecord
    read: Callable[[Callable[[], State]], Layers]


def find_prepared(spec: ModelSpec, weights: Path) -> list[PreparedForm]:
    """Every form of the model whose weights lie at `weights`, the fastest first.

    A file that `upscaled models quantise` made here comes before the shipped recipe.

    Raises:
        WeightsError: a record or a recipe is damaged, or the record is of other weights.
    """
    if quantised_path(weights).is_file():
        record = read_record(spec, weights)
        return [PreparedForm(record, lambda _: read_quantised(spec, weights))]
    return [PreparedForm(each.record, each.prepare) for each in find_recipes(spec)]
