"""Ship: a student becomes a default model, with all that goes along."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from scripts.training.eight_bits import simulate_untuned
from scripts.training.ship import ship_student
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.span import span_shape
from upscaled_models.files import hash_file
from upscaled_models.quantise import prepare
from upscaled_models.quantise.files import read_quantised, serialise_layers
from upscaled_models.quantise.simulation import freeze
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A network that enlarges, and adds next to nothing to that."""
    torch.manual_seed(1)
    weights = build_network("srvgg", srvgg_shape(upscale=4, num_conv=1, num_feat=8)).state_dict()
    weights["body.4.weight"] *= 0.05
    save_file(weights, tmp_path / "student.safetensors")
    return tmp_path / "student.safetensors"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make six photos, of which a sixth as many pictures are cut as usual."""
    monkeypatch.setattr(prepare, "PHOTOS_TO_TUNE", 24)
    folder = tmp_path / "photos"
    folder.mkdir()
    for at in range(6):
        smooth = np.random.default_rng(at).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize((120, 120)).save(folder / f"{at}.png")
    return folder


@pytest.mark.slow
def test_a_student_is_shipped_with_its_entry_and_its_8_bits(
    tmp_path: Path, student: Path, photos: Path
) -> None:
    folder = tmp_path / "default"
    folder.mkdir()
    other = {
        "file": "other.safetensors",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "family": "plain",
        "shape": plain_shape(scale=2, layers=1, features=4),
        "licence": "Apache-2.0",
    }
    (folder / "manifest.json").write_text(json.dumps({"other": other}))
    said: list[str] = []
    record = ship_student(student, "upscaled-x4", folder, photos, steps=1, say=said.append)
    assert record is not None
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest) == ["other", "upscaled-x4"]
    entry, path = manifest["upscaled-x4"], folder / "upscaled-x4.safetensors"
    assert (entry["sha256"], entry["size_bytes"]) == (hash_file(path), path.stat().st_size)
    assert (entry["family"], entry["bits"], entry["keeps_colour"]) == ("srvgg", 16, False)
    assert entry["licence"] == "BSD-3-Clause"
    stored, wanted = load_file(path), load_file(student)
    assert all(torch.equal(stored[key], value.half()) for key, value in wanted.items())
    assert record.weights_sha256 == entry["sha256"]
    assert manifest["other"] == other
    spec = ModelStore(tmp_path, folder).find("upscaled-x4")
    assert read_quantised(spec, path).convolutions["body.0"].quantised is not None
    assert any(entry["sha256"] in line for line in said)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.slow
def test_layers_that_were_tuned_before_are_proven_and_shipped_as_they_are(
    tmp_path: Path, student: Path, photos: Path
) -> None:
    folder = tmp_path / "default"
    folder.mkdir()
    network = build_network("srvgg", srvgg_shape(upscale=4, num_conv=1, num_feat=8))
    network.load_state_dict(load_file(student))
    layers = freeze(simulate_untuned(network, torch.rand(2, 3, 20, 20), 0.5))
    tuned = tmp_path / "tuned.safetensors"
    tuned.write_bytes(serialise_layers(layers))
    ship_student(student, "upscaled-x4", folder, photos, steps=1, say=print, tuned=tuned)
    assert (folder / "upscaled-x4.int8.safetensors").read_bytes() == tuned.read_bytes()


def test_a_folded_student_of_our_own_is_shipped_under_our_licence(tmp_path: Path) -> None:
    weights = build_network("plain", plain_shape(2, layers=0, features=4, fold=2)).state_dict()
    save_file(weights, tmp_path / "student.safetensors")
    folder = tmp_path / "default"
    folder.mkdir()
    ship_student(tmp_path / "student.safetensors", "upscaled-x2", folder, None, steps=0, say=print)
    entry = json.loads((folder / "manifest.json").read_text())["upscaled-x2"]
    assert entry["shape"] == plain_shape(2, layers=0, features=4, fold=2)
    assert (entry["licence"], entry["keeps_colour"]) == ("Apache-2.0", True)


def test_a_network_of_a_family_without_a_default_model_is_not_shipped(tmp_path: Path) -> None:
    weights = build_network("span", span_shape(scale=2, features=4)).state_dict()
    save_file(weights, tmp_path / "student.safetensors")
    with pytest.raises(ValueError, match="no default model is a span network"):
        ship_student(
            tmp_path / "student.safetensors", "upscaled-x2", tmp_path, None, steps=0, say=print
        )


def test_a_file_with_a_second_name_is_not_replaced(tmp_path: Path, student: Path) -> None:
    manifest = json.dumps({"upscaled-x4-faithful": {"same_as": "upscaled-x4"}})
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match="upscaled-x4-faithful shares the file of upscaled-x4"):
        ship_student(student, "upscaled-x4", tmp_path, None, steps=0, say=print)
    assert not (tmp_path / "upscaled-x4.safetensors").exists()
