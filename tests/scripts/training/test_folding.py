"""Folding: the x2 network that a run starts from computes what the x4 network computed."""

from pathlib import Path

import pytest
import torch

from scripts.training.command import main
from scripts.training.folding import fold_network
from upscaled_models.networks.compact import SRVGGNetCompact
from upscaled_models.networks.plain import PlainNet
from upscaled_models.weights import recognise_file


def gentle_slope(height: int, width: int) -> torch.Tensor:
    """A colour that changes evenly, by steps that the limited view does not limit."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows * 0.002, columns * 0.003, (rows + columns) * 0.001])[None]


@torch.no_grad()
def test_the_folded_network_adds_what_the_x4_network_adds_to_half_of_the_picture() -> None:
    torch.manual_seed(3)
    network = PlainNet(8, 2, 4).eval()
    torch.nn.init.normal_(network.tail.weight, std=0.2)
    picture = gentle_slope(48, 64)
    half = torch.nn.functional.avg_pool2d(picture, 2)

    folded = fold_network(network)

    residuals = [
        net(x) - torch.nn.functional.interpolate(x, scale_factor=net.scale, mode="bilinear")
        for net, x in ((network, half), (folded, picture))
    ]
    inner = [each[..., 24:-24, 24:-24] for each in residuals]
    assert inner[0].abs().max() > 0.005
    torch.testing.assert_close(inner[1], inner[0], atol=1e-6, rtol=1e-4)


def test_a_network_that_folds_or_has_an_odd_scale_is_refused() -> None:
    for network in (PlainNet(4, 0, 2, fold=2), PlainNet(4, 0, 3)):
        with pytest.raises(ValueError, match="cannot be folded"):
            fold_network(network)


def test_the_command_writes_a_model_that_is_recognised(tmp_path: Path) -> None:
    made = tmp_path / "folded.safetensors"
    main(["fold", "--from", "upscaled-x4-faithful", "--to", str(made)])
    family, shape = recognise_file(made)
    assert (family, shape["scale"], shape["fold"]) == ("plain", 2, 2)

    other = tmp_path / "other.pth"
    torch.save(SRVGGNetCompact(num_feat=4, num_conv=1).state_dict(), other)
    with pytest.raises(SystemExit, match="no network like the shipped ones"):
        main(["fold", "--from", str(other), "--to", str(made)])
