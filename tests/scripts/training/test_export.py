"""Export: the file holds the averaged weights, and the manifest describes the file."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from scripts.evaluation.upscalers import open_network
from scripts.training import checkpoint
from scripts.training.export import export
from scripts.training.loop import begin
from scripts.training.recipe import Recipe
from upscaled_models.networks.compact import SRVGGNetCompact
from upscaled_models.networks.plain import PlainNet


def read_stored(path: Path) -> PlainNet:
    network, _ = open_network(str(path), path.parent)
    assert isinstance(network, PlainNet)
    return network


def test_an_exported_network_is_the_runs_average_to_half_precision(tmp_path: Path) -> None:
    run = begin(Recipe(2, features=6, layers=2))
    checkpoint.save(run, tmp_path / "run")
    entry = export(tmp_path / "run", "upscaled-x2", tmp_path)
    network = read_stored(tmp_path / entry["file"])
    pairs = zip(network.parameters(), run.average.parameters(), strict=True)
    assert all(torch.equal(own, other.half().float()) for own, other in pairs)
    with safe_open(tmp_path / entry["file"], framework="pt") as file:
        assert file.metadata()["family"] == "plain"


def test_an_export_can_extrapolate_its_last_steps(tmp_path: Path) -> None:
    before, after = (begin(Recipe(2, features=6, layers=2, seed=seed)) for seed in (1, 2))
    checkpoint.save(before, tmp_path / "before")
    checkpoint.save(after, tmp_path / "after")
    entry = export(
        tmp_path / "after", "upscaled-x2", tmp_path, past=tmp_path / "before", beyond=0.25
    )
    stored = read_stored(tmp_path / entry["file"]).head.weight
    start, end = (run.average.get_parameter("head.weight") for run in (before, after))
    assert torch.allclose(stored, 1.25 * end - 0.25 * start, atol=1e-3)
    assert not torch.allclose(stored, end, atol=1e-2)


def test_the_manifest_describes_the_file_and_keeps_other_entries(tmp_path: Path) -> None:
    for scale in (4, 2):
        checkpoint.save(begin(Recipe(scale, features=6, layers=2)), tmp_path / f"x{scale}")
        export(tmp_path / f"x{scale}", f"upscaled-x{scale}", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest) == ["upscaled-x2", "upscaled-x4"]
    entry = manifest["upscaled-x2"]
    content = (tmp_path / entry["file"]).read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["size_bytes"] == len(content)
    assert entry["shape"] == {"features": 6, "layers": 2, "scale": 2}


def test_a_file_with_a_second_name_is_exported_again_only_as_it_is(tmp_path: Path) -> None:
    checkpoint.save(begin(Recipe(2, features=6, layers=2)), tmp_path / "run")
    export(tmp_path / "run", "upscaled-x2", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["second"] = {"same_as": "upscaled-x2"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    export(tmp_path / "run", "upscaled-x2", tmp_path)
    before = (tmp_path / "upscaled-x2.safetensors").read_bytes()
    checkpoint.save(begin(Recipe(2, features=6, layers=2, seed=9)), tmp_path / "other")
    with pytest.raises(ValueError, match="second shares the file of upscaled-x2"):
        export(tmp_path / "other", "upscaled-x2", tmp_path)
    assert (tmp_path / "upscaled-x2.safetensors").read_bytes() == before


def test_a_folded_network_is_exported_as_one(tmp_path: Path) -> None:
    run = begin(Recipe(2, features=6, layers=2))
    run.average = PlainNet(6, 2, 2, fold=2)
    checkpoint.save(run, tmp_path / "run")
    entry = export(tmp_path / "run", "upscaled-x2", tmp_path)
    assert entry["shape"] == {"features": 6, "layers": 2, "scale": 2, "fold": 2}
    network = read_stored(tmp_path / entry["file"])
    assert (network.scale, network.fold) == (2, 2)
    assert torch.equal(network.head.weight, run.average.head.weight.half().float())


def test_a_network_that_is_not_plain_is_no_default_model(tmp_path: Path) -> None:
    run = begin(Recipe(2, features=6, layers=2))
    run.average = SRVGGNetCompact(num_feat=4, num_conv=1)
    checkpoint.save(run, tmp_path / "run")
    with pytest.raises(ValueError, match="trains a srvgg network"):
        export(tmp_path / "run", "upscaled-x2", tmp_path)


def test_a_run_without_checkpoint_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt"):
        export(tmp_path, "upscaled-x2", tmp_path)


def test_every_user_may_read_an_exported_file(tmp_path: Path) -> None:
    checkpoint.save(begin(Recipe(2, features=6, layers=2)), tmp_path / "run")
    entry = export(tmp_path / "run", "upscaled-x2", tmp_path)
    assert (tmp_path / entry["file"]).stat().st_mode & 0o777 == 0o644
