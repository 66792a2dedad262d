"""`--denoise`: the two published networks of realesr-general-x4v3, mixed by their weights."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.service.cli.test_image import lines_of, run
from upscaled_models import store
from upscaled_models.registry import ModelSpec, find_official

NAME = "realesr-general-x4v3"


@pytest.fixture(autouse=True)
def _is_exact(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")
    monkeypatch.setenv("UPSCALED_PACKAGED_MODELS", "false")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path_factory.mktemp("data")))


@pytest.fixture
def grainy(tmp_path: Path) -> Path:
    """A picture of flat grey with noise."""
    noise = np.random.default_rng(1).normal(128, 15, (32, 32, 3))
    path = tmp_path / "grainy.png"
    PillowImage.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def _has_both_networks(shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published weights, in 16 bits, where the registry expects them in 32."""
    general = find_official(NAME)
    assert general is not None
    assert general.wdn is not None
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)

    def place(spec: ModelSpec) -> ModelSpec:
        file = shared_dir / "weights" / f"{spec.name}.fp16.safetensors"
        if not file.is_file():
            pytest.skip(f"no {file}")
        shutil.copy(file, folder)
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return replace(spec, file_name=file.name, sha256=digest, size_bytes=len(data))

    placed = replace(place(general), wdn=place(general.wdn))
    official = {NAME: placed, general.wdn.name: placed.wdn}
    monkeypatch.setattr(store, "find_official", official.get)


@pytest.mark.slow
@pytest.mark.usefixtures("_has_both_networks")
def test_less_denoising_keeps_more_grain(grainy: Path, tmp_path: Path) -> None:
    grain = []
    for number, options in enumerate(([], ["--denoise", "0.5"], ["--denoise", "0"])):
        target = tmp_path / f"{number}.png"
        done = run(grainy, "--scale", "4", "--model", NAME, "-o", target, *options)
        (line,), summary = lines_of(done)
        assert (done.exit_code, line["model"], summary["upscaled"]) == (0, NAME, 1)
        with PillowImage.open(target) as result:
            grain.append(float(np.asarray(result).std()))
    assert 1.05 * grain[0] < grain[1], grain
    assert 1.05 * grain[1] < grain[2], grain


@pytest.mark.parametrize("model", ["", "upscaled-x4", "nonsense"])
def test_a_model_without_the_choice_is_refused_by_name_with_the_one_that_has_it(
    grainy: Path, model: str
) -> None:
    named = ["--model", model] if model else []
    done = run(grainy, "--scale", "4", "--denoise", "0.5", *named)
    assert done.exit_code == 2
    text = " ".join(done.stderr.replace("│", "").split())
    assert (
        f"--denoise: {model or 'auto'} has no strength of denoising; {NAME} has (--model)" in text
    )
    assert list(grainy.parent.iterdir()) == [grainy]


@pytest.mark.parametrize("strength", ["-0.1", "1.1", "nan", "much"])
def test_a_strength_out_of_range_is_refused(grainy: Path, strength: str) -> None:
    done = run(grainy, "--scale", "4", "--model", NAME, "--denoise", strength)
    assert done.exit_code != 0
    assert list(grainy.parent.iterdir()) == [grainy]
