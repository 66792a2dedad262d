import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from scripts.bundling.gathering import Need
from scripts.bundling.parts import Part, find_model_files, read_wheel, write_sbom
from scripts.bundling.target import Target
from tests.scripts.bundling.making import make_own_model, make_wheel
from upscaled_models.store import ModelStore

TARGET = Target("3.11", (2, 28), "x86_64", "cpu")
NEEDS = {
    "pip": Need("pip==1.0", ()),
    "part": Need("part==1.0", ("driver", "upscaled")),
    "driver": Need("driver==1.0", ("upscaled",)),
    "upscaled": Need("upscaled @ file:///upscaled.whl", ()),
}


@pytest.fixture
def wheels(tmp_path: Path) -> list[Part]:
    paths = [
        make_wheel(tmp_path, "pip", "License-Expression: MIT"),
        make_wheel(tmp_path, "part", "License: a word of their own"),
        make_wheel(tmp_path, "driver", "License-Expression: MIT OR Apache-2.0"),
        make_wheel(tmp_path, "upscaled", "License-Expression: Apache-2.0"),
    ]
    return [read_wheel(path) for path in paths]


def _read_schema(uri: str) -> Any:
    """Read the published schemas from the library that writes the document."""
    folder = files("cyclonedx.schema") / "_res"
    return json.loads((folder / uri.rpartition("/")[2]).read_text())


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = _read_schema("bom-1.6.SNAPSHOT.schema.json")
    return jsonschema_rs.validator_for(schema, retriever=_read_schema)


def test_the_document_follows_the_schema_of_cyclonedx(
    wheels: list[Part], tmp_path: Path, validator: Any
) -> None:
    make_own_model("our-own", tmp_path / "models")
    models = find_model_files(ModelStore(tmp_path / "models"))
    document = json.loads(write_sbom([*wheels, *models], NEEDS, TARGET))
    assert [error.message for error in validator.iter_errors(document)] == []
    document["components"][0]["type"] = "none such"
    assert list(validator.iter_errors(document))


def test_every_part_is_there_with_its_hash_and_licence(wheels: list[Part], tmp_path: Path) -> None:
    make_own_model("our-own", tmp_path / "models")
    models = find_model_files(ModelStore(tmp_path / "models"))
    document = json.loads(write_sbom([*wheels, *models], NEEDS, TARGET))
    parts = [document["metadata"]["component"], *document["components"]]
    hashes = {part["name"]: part["hashes"][0]["content"] for part in parts}
    assert hashes.items() >= {wheel.name: wheel.sha256 for wheel in wheels}.items()
    assert "own/our-own.safetensors" in hashes
    licences = {part["name"]: part.get("licenses") for part in parts}
    assert licences["part"] == [{"license": {"name": "a word of their own"}}]
    assert licences["driver"][0]["expression"] == "MIT OR Apache-2.0"


@pytest.mark.parametrize(
    ("licence", "written"),
    [
        ("LicenseRef-Of-A-Driver", {"expression": "LicenseRef-Of-A-Driver"}),
        ("mit or LicenseRef-Own", {"expression": "MIT OR LicenseRef-Own"}),
        ("(MIT)", {"expression": "(MIT)"}),
        ("Apache-2.0+", {"expression": "Apache-2.0+"}),
        ("isc", {"license": {"id": "ISC"}}),
        ("BSD", {"license": {"name": "BSD"}}),
    ],
)
def test_every_way_to_write_a_licence_is_valid_to_cyclonedx(
    wheels: list[Part], validator: Any, licence: str, written: dict[str, Any]
) -> None:
    others = [replace(each, licence=licence) for each in wheels]
    document = json.loads(write_sbom(others, NEEDS, TARGET))
    assert [error.message for error in validator.iter_errors(document)] == []
    assert all(part["licenses"] == [written] for part in document["components"])


def test_dependencies_are_listed_as_installed(wheels: list[Part]) -> None:
    document = json.loads(write_sbom(wheels, NEEDS, TARGET))
    found = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert found == {
        "upscaled==1.0": ["driver==1.0", "part==1.0"],
        "driver==1.0": ["part==1.0"],
        "part==1.0": [],
        "pip==1.0": [],
    }


def test_the_same_parts_give_the_same_document(wheels: list[Part]) -> None:
    assert write_sbom(wheels, NEEDS, TARGET) == write_sbom(wheels, NEEDS, TARGET)
    assert write_sbom(wheels, NEEDS, TARGET) != write_sbom(wheels[1:], NEEDS, TARGET)
