"""PlainNet: flat colour comes back exactly, and nothing is seen beyond the radius."""

import pytest
import torch
from torch import Tensor

from upscaled_models.networks.plain import PlainNet, differences


@pytest.fixture
def network() -> PlainNet:
    """Weights as after a training: no symmetry, no small tail."""
    torch.manual_seed(5)
    network = PlainNet(12, 3, 4)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


def levels(pixels: Tensor) -> Tensor:
    return (pixels.clamp(0, 1) * 255).round().to(torch.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_every_flat_grey_comes_back_exactly_up_to_the_border(
    network: PlainNet, dtype: torch.dtype
) -> None:
    greys = torch.arange(256).view(256, 1, 1, 1).expand(256, 3, 6, 7)
    result = levels(network.to(dtype)(greys / 255))
    assert torch.equal(result, greys[:, :, :1, :1].expand(256, 3, 24, 28))


@torch.no_grad()
def test_flat_colours_come_back_exactly(network: PlainNet) -> None:
    colours = torch.randint(0, 256, (64, 3, 1, 1)).expand(64, 3, 5, 5)
    assert torch.equal(levels(network(colours / 255)), colours[..., :1, :1].expand(64, 3, 20, 20))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 8)])
@torch.no_grad()
def test_any_size_is_enlarged_by_the_scale(scale: int, size: tuple[int, int]) -> None:
    height, width = size
    result = PlainNet(4, 1, scale)(torch.rand(2, 3, height, width))
    assert result.shape == (2, 3, height * scale, width * scale)


@torch.no_grad()
def test_the_radius_is_how_far_a_change_reaches_and_no_further(network: PlainNet) -> None:
    image = torch.rand(1, 3, 41, 41)
    changed = image.clone()
    changed[..., 20, 20] = 1 - changed[..., 20, 20]
    apart = (network(image) != network(changed)).any(dim=1)[0]
    rows = apart.any(dim=1).nonzero().flatten() // 4
    assert int(rows.min()) == 20 - 6
    assert int(rows.max()) <= 20 + 6


@torch.no_grad()
def test_half_precision_weights_keep_every_level_of_a_float32_image(network: PlainNet) -> None:
    ramp = torch.arange(256).view(1, 1, 1, 256).expand(1, 3, 8, 256) / 255
    torch.nn.init.zeros_(network.tail.weight)
    whole, half = network(ramp), network.to(torch.bfloat16)(ramp)
    assert half.dtype == torch.float32
    assert torch.equal(whole, half)


def test_the_last_row_and_column_have_no_step() -> None:
    steps = differences(torch.rand(1, 3, 5, 6))
    assert not steps[:, 0:3, :, -1].any()
    assert not steps[:, 3:6, -1, :].any()
    assert steps[:, 0:3, :, :-1].all()


def test_the_limited_view_saturates_beyond_a_sixteenth() -> None:
    image = torch.zeros(1, 3, 1, 4)
    image[..., 1], image[..., 2], image[..., 3] = 1 / 32, 1 / 32 + 1 / 16, 1.0
    assert differences(image)[0, 6, 0].tolist() == pytest.approx([0.5, 1.0, 1.0, 0.0])
