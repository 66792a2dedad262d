"""PlainNet: flat colour comes back exactly, and nothing is seen beyond the radius."""

import pytest
import torch
from torch import Tensor

from upscaled_models.networks.plain import PlainNet, differences, folded_differences


@pytest.fixture(params=[(4, 1), (2, 2)], ids=["x4", "x2 folded"])
def network(request: pytest.FixtureRequest) -> PlainNet:
    """Weights as after a training: no symmetry, no small tail."""
    torch.manual_seed(5)
    scale, fold = request.param
    network = PlainNet(12, 3, scale, fold)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


def levels(pixels: Tensor) -> Tensor:
    return (pixels.clamp(0, 1) * 255).round().to(torch.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_every_flat_grey_is_reproduced_exactly_up_to_the_border(
    network: PlainNet, dtype: torch.dtype
) -> None:
    greys = torch.arange(256).view(256, 1, 1, 1).expand(256, 3, 6, 8)
    result = levels(network.to(dtype)(greys / 255))
    height, width = 6 * network.scale, 8 * network.scale
    assert torch.equal(result, greys[:, :, :1, :1].expand(256, 3, height, width))


@torch.no_grad()
def test_flat_colours_are_reproduced_exactly(network: PlainNet) -> None:
    colours = torch.randint(0, 256, (64, 3, 1, 1)).expand(64, 3, 4, 6)
    height, width = 4 * network.scale, 6 * network.scale
    result = levels(network(colours / 255))
    assert torch.equal(result, colours[..., :1, :1].expand(64, 3, height, width))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 8)])
@torch.no_grad()
def test_any_size_is_enlarged_by_the_scale(scale: int, size: tuple[int, int]) -> None:
    height, width = size
    result = PlainNet(4, 1, scale)(torch.rand(2, 3, height, width))
    assert result.shape == (2, 3, height * scale, width * scale)


@pytest.mark.parametrize("at", [20, 21])
@torch.no_grad()
def test_the_radius_is_how_far_a_change_reaches_and_no_further(network: PlainNet, at: int) -> None:
    """The change is in one of two columns, and reaches as far as it can from the one on the left:
    the difference to it belongs to the square of 2x2 pixels before its own."""
    radius_px = 6 * network.fold
    image = torch.rand(1, 3, 42, 42)
    changed = image.clone()
    changed[..., at, at] = 1 - changed[..., at, at]
    apart = (network(image) != network(changed)).any(dim=1)[0]
    rows = apart.any(dim=1).nonzero().flatten() // network.scale
    assert int(rows.min()) == at - radius_px + at % network.fold
    assert int(rows.max()) <= at + radius_px - 1


@torch.no_grad()
def test_folding_puts_squares_of_differences_side_by_side() -> None:
    image = torch.rand(1, 3, 6, 8)
    plain, folded = differences(image), folded_differences(image, 2)
    assert folded.shape == (1, 48, 3, 4)
    for channel, row, column in ((0, 0, 0), (5, 1, 0), (11, 0, 1), (7, 1, 1)):
        at = (channel * 2 + row) * 2 + column
        assert torch.equal(folded[:, at], plain[:, channel, row::2, column::2])
    assert torch.equal(folded_differences(image, 1), plain)


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
