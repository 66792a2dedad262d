"""scripts/train: from photos to a shipped file, and on from where a run stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from scripts.training.command import main
from scripts.training.export import store_weights
from upscaled_models.networks.plain import PlainNet

TINY = ("features=4", "layers=1", "batch=1", "patch_px=8", "pages=1", "steps=3")


def call(*arguments: str | Path) -> None:
    main([str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def test_a_run_resumes_where_it_stopped_and_exports(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for value in TINY for part in ("--set", value)]
    run = ("run", "--photos", photos, "--out", tmp_path / "run", "--scale", "2", "--threads", "1")
    call(*run, *settings, "--until", "2")
    call(*run, "--set", "rate=0.01")
    begins = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [begin["begins_at"] for begin in begins] == [0, 2]
    assert [begin["rate"] for begin in begins] == [0.001, 0.01]
    assert begins[1]["features"] == 4
    call("export", "--out", tmp_path / "run", "--name", "m", "--folder", tmp_path)
    said = json.loads(capsys.readouterr().out)
    assert (tmp_path / said["m"]["file"]).stat().st_size == said["m"]["size_bytes"]


def test_a_run_starts_from_the_weights_of_a_file(tmp_path: Path, photos: Path) -> None:
    torch.manual_seed(3)
    donor = PlainNet(4, 1, 2, fold=2)
    store_weights(donor.state_dict(), tmp_path / "donor.safetensors")
    settings = [part for value in (*TINY, "fold=2") for part in ("--set", value)]
    run = ("run", "--photos", photos, "--out", tmp_path / "run", "--scale", "2", "--threads", "1")
    call(*run, *settings, "--from", tmp_path / "donor.safetensors", "--until", "0")
    call("student", "--out", tmp_path / "run", "--to", tmp_path / "student.safetensors")
    stored = load_file(tmp_path / "student.safetensors")
    for name, weight in donor.state_dict().items():
        assert torch.equal(stored[name], weight.half().to(stored[name].dtype)), name


def test_pages_are_drawn_to_measure_on(tmp_path: Path) -> None:
    call("draw", "--out", tmp_path, "--count", "2")
    with Image.open(tmp_path / "page1.png") as page:
        assert page.size == (384, 384)
    assert not (tmp_path / "page2.png").exists()
