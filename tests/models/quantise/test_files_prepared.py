import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.models.quantise.test_record import SPEC, make_layers, make_proof, write_int8
from tests.models.quantise.test_rounding import levels_of
from upscaled_models.backends.openvino.layers import Floats
from upscaled_models.errors import WeightsError
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.packaged import install_packaged, is_packaged_here
from upscaled_models.quantise.files import (
    RECIPES_DIR,
    RecipeFile,
    RecipeForm,
    digest_layers,
    find_prepared,
    find_recipes,
    record_path,
    serialise_layers,
)
from upscaled_models.quantise.record import allowed_in
from upscaled_models.quantise.rounding import cut_to_half, round_layers
from upscaled_models.registry import ModelSpec, find_official
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network, load_network, state_of

SHAPE = rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)
SHIPPED = sorted(path.stem for path in RECIPES_DIR.glob("*.json"))


def spec_of(sha256: str) -> ModelSpec:
    official = find_official("realesrgan-x4plus")
    assert official is not None
    return dataclasses.replace(official, shape=SHAPE, sha256=sha256)


def small_state() -> dict[str, Floats]:
    torch.manual_seed(4)
    return state_of(build_network("rrdb", SHAPE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe of two forms for a small network."""
    state = cut_to_half(small_state())
    levels = levels_of(state)
    forms = []
    for float_layers in ([], ["conv_hr", "conv_last"]):
        layers = round_layers(state, levels, float_layers)
        forms.append(
            RecipeForm(
                float_layers=float_layers,
                sha256=digest_layers(layers),
                size_bytes=len(serialise_layers(layers)),
                proof=make_proof(),
                versions={},
            )
        )
    arrays: dict[str, NDArray[np.generic]] = {
        f"{name}.scale": each.scale for name, each in levels.items()
    }
    for name, each in levels.items():
        arrays[f"{name}.range"] = np.array([each.low, each.high], np.float32)
    save_file(arrays, tmp_path / "realesrgan-x4plus.safetensors")
    file = RecipeFile(model="realesrgan-x4plus", weights=["a" * 64, "b" * 64], forms=forms)
    (tmp_path / "realesrgan-x4plus.json").write_text(file.model_dump_json())
    return tmp_path


def test_a_recipe_makes_its_layers_of_weights_in_32_and_in_16_bits(folder: Path) -> None:
    recipes = find_recipes(spec_of("b" * 64), folder)
    assert [each.record.model_dump()["float_layers"] for each in recipes] == [
        [],
        ["conv_hr", "conv_last"],
    ]
    state = small_state()
    full, half = recipes[1].read(lambda: state), recipes[1].read(lambda: cut_to_half(state))
    assert digest_layers(full) == digest_layers(half) == recipes[1].record.sha256
    assert full.convolutions["conv_hr"].quantised is None
    assert full.convolutions["conv_up2"].weight.dtype == np.int8


def test_a_recipe_is_for_its_own_weights_alone(folder: Path) -> None:
    assert find_recipes(spec_of("c" * 64), folder) == []
    own = dataclasses.replace(spec_of("a" * 64), source="user")
    assert find_recipes(own, folder) == []
    assert find_recipes(spec_of("a" * 64), folder / "elsewhere") == []


def test_a_recipe_that_makes_other_layers_than_recorded_is_refused(folder: Path) -> None:
    other = small_state()
    other["conv_up1.weight"][0, 0, 0, 0] += 1
    with pytest.raises(WeightsError, match="other layers of these weights than it was proven with"):
        find_recipes(spec_of("a" * 64), folder)[0].read(lambda: other)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_recipe_is_refused_by_name(folder: Path, suffix: str) -> None:
    path = folder / f"realesrgan-x4plus{suffix}"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match=rf"realesrgan-x4plus\{suffix}: not a"):
        find_recipes(spec_of("a" * 64), folder)[0].read(small_state)


def test_recipes_ship_for_either_file_of_x4plus_and_anime() -> None:
    assert SHIPPED == ["realesrgan-x4plus", "realesrgan-x4plus-anime-6b"]
    for name in SHIPPED:
        official = find_official(name)
        assert official is not None
        assert official.packaged is not None
        assert find_recipes(official)
        assert find_recipes(official.packaged)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_small_and_allowed_in_fast(name: str) -> None:
    size_bytes = sum(path.stat().st_size for path in RECIPES_DIR.glob(f"{name}.*"))
    assert size_bytes < 64_000
    official = find_official(name)
    assert official is not None
    records = [each.record for each in find_recipes(official)]
    assert allowed_in(records[0], "fast")
    assert all(allowed_in(each, "fast") for each in records)
    text = json.loads((RECIPES_DIR / f"{name}.json").read_text())
    assert text["model"] == name


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_makes_the_recorded_layers_of_the_real_weights(
    name: str, tmp_path: Path
) -> None:
    official = find_official(name)
    assert official is not None
    packaged = official.packaged
    assert packaged is not None
    if not is_packaged_here(packaged):
        pytest.skip("the weights' package is not installed")
    weights = install_packaged(packaged, ModelStore(tmp_path))
    state = state_of(load_network(packaged, weights))
    started = time.process_time()
    for recipe in find_recipes(packaged):
        recipe.read(lambda: state)  # refuses what has another SHA-256
    assert time.process_time() - started < 10


def test_a_models_own_file_is_preferred_to_all_others(tmp_path: Path) -> None:
    def read_weights() -> dict[str, Floats]:
        raise AssertionError("the file's own layers need no weights")

    (form,) = find_prepared(SPEC, write_int8(tmp_path / "mine.safetensors", SPEC))
    layers = form.read(read_weights)
    assert digest_layers(layers) == digest_layers(make_layers())
    assert form.record.model_dump()["model"] == SPEC.name


def test_a_damaged_record_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    weights = write_int8(tmp_path / "mine.safetensors", SPEC)
    record_path(weights).write_text("{")
    with pytest.raises(WeightsError, match="not a readable record"):
        find_prepared(SPEC, weights)


def test_a_model_without_an_8_bit_file_and_recipe_has_no_8_bit_form(tmp_path: Path) -> None:
    assert find_prepared(SPEC, tmp_path / "mine.safetensors") == []


@pytest.mark.parametrize("name", ["realesrgan-x4plus", "realesrgan-x4plus-anime-6b"])
def test_official_weights_use_the_shipped_recipe(name: str, tmp_path: Path) -> None:
    spec = find_official(name)
    assert spec is not None
    weights = ModelStore(tmp_path).target(spec)
    assert allowed_in(find_prepared(spec, weights)[0].record, "fast")
