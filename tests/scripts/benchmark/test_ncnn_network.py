from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from scripts.benchmark.contestant import Absent
from scripts.benchmark.ncnn_network import write_network
from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.weights import build_network

NETWORKS: list[tuple[Family, Shape]] = [
    ("srvgg", srvgg_shape(4, 2, num_feat=8)),
    ("rrdb", rrdb_shape(4, num_block=2, num_feat=8, num_grow_ch=4)),
]


@pytest.fixture(params=NETWORKS, ids=lambda each: each[0])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build_network(*request.param).eval()


def test_every_blob_is_made_once_and_read_once(network: nn.Module, tmp_path: Path) -> None:
    write_network(network, tmp_path)
    magic, counts, *layers = (tmp_path / "network.param").read_text().splitlines()
    made: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for layer in layers:
        words = layer.split()
        inputs, outputs = int(words[2]), int(words[3])
        read.update(words[4 : 4 + inputs])
        made.update(words[4 + inputs : 4 + inputs + outputs])
    assert magic == "7767517"
    assert counts == f"{len(layers)} {len(made)}"
    assert set(made.values()) == set(read.values()) == {1}
    assert made.keys() - read.keys() == {"out"}


def test_the_binary_file_holds_every_weight_and_a_mark_for_each_convolution(
    network: nn.Module, tmp_path: Path
) -> None:
    write_network(network, tmp_path)
    weights = sum(weight.numel() for weight in network.parameters())
    marks = sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
    assert (tmp_path / "network.bin").stat().st_size == 4 * (weights + marks)


def test_ncnn_makes_the_same_picture_of_it(network: nn.Module, tmp_path: Path) -> None:
    ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed")
    write_network(network, tmp_path)
    picture = torch.rand(3, 12, 20)
    net = ncnn.Net()
    net.load_param(str(tmp_path / "network.param"))
    net.load_model(str(tmp_path / "network.bin"))
    extractor = net.create_extractor()
    extractor.input("in", ncnn.Mat(picture.numpy()))
    status, theirs = extractor.extract("out")
    result = np.array(theirs)
    del theirs, extractor  # they point into the network, and must go before it
    assert status == 0
    with torch.inference_mode():
        ours = network(picture[None])[0].numpy()
    np.testing.assert_allclose(result, ours, atol=2e-3)


def test_a_network_that_is_not_written_for_ncnn_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="PlainNet"):
        write_network(build_network("plain", plain_shape(4, layers=1, features=4)), tmp_path)
