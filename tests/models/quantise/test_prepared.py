from pathlib import Path

import pytest

from tests.models.quantise.test_record import SPEC, make_layers, place
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.errors import WeightsError
from upscaled_models.official import find_official
from upscaled_models.quantise.prepared import find_prepared
from upscaled_models.quantise.record import allowed_in, digest_layers, record_path
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore


def read_nothing() -> dict[str, object]:
    raise AssertionError("the file's own layers need no weights")


def test_a_models_own_file_comes_before_anything(tmp_path: Path) -> None:
    (form,) = find_prepared(SPEC, place(tmp_path))
    layers: Layers = form.read(read_nothing)  # type: ignore[arg-type]
    assert digest_layers(layers) == digest_layers(make_layers())
    assert form.record.model == SPEC.name


def test_a_damaged_record_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    weights = place(tmp_path)
    record_path(weights).write_text("{")
    with pytest.raises(WeightsError, match="not a readable record"):
        find_prepared(SPEC, weights)


def test_a_model_without_file_and_recipe_has_no_form(tmp_path: Path) -> None:
    assert find_prepared(SPEC, tmp_path / "mine.safetensors") == []


@pytest.mark.parametrize("name", ["realesrgan-x4plus", "realesrgan-x4plus-anime-6b"])
def test_official_weights_take_the_shipped_recipe(name: str, tmp_path: Path) -> None:
    spec = find_official(name)
    assert isinstance(spec, ModelSpec)
    weights = ModelStore(tmp_path).target(spec)
    assert allowed_in(find_prepared(spec, weights)[0].record, "fast")
