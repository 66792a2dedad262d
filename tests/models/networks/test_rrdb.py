import copy

import pytest
import torch
from torch import nn

from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.networks import strips
from upscaled_models.networks.rrdb import RRDBNet
from upscaled_models.networks.strips import MIN_CORE_ROWS, STRIP_PX, TAIL_RADIUS_PX, plan_strips
from upscaled_models.weights import build_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("scale", "fold"), [(4, 1), (2, 2), (1, 4)])
def test_output_has_scale_times_the_sides_and_the_trunk_runs_folded(scale: int, fold: int) -> None:
    network = build_network("rrdb", rrdb_shape(scale, num_block=1, num_feat=4, num_grow_ch=2))
    seen: list[torch.Size] = []
    trunk = network.get_submodule("conv_body")
    assert isinstance(trunk, nn.Conv2d)
    trunk.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    assert network(torch.rand(1, 3, 8, 12)).shape == (1, 3, 8 * scale, 12 * scale)
    assert seen == [(1, 4, 8 // fold, 12 // fold)]


@pytest.mark.parametrize("scale", [0, 3, 8])
def test_another_scale_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match=f"1, 2 or 4, not {scale}"):
        RRDBNet(3, 3, scale, num_block=1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_that_share_a_buffer_give_what_joined_ones_give(
    memory_format: torch.memory_format, dtype: torch.dtype
) -> None:
    """Without gradients each block overwrites the room of the one before."""
    torch.manual_seed(0)
    network = build_network("rrdb", rrdb_shape(scale=2, num_block=2, num_feat=8, num_grow_ch=4))
    network = network.eval().to(dtype).to(memory_format=memory_format)  # type: ignore[call-overload]
    image = torch.rand(2, 3, 14, 10, dtype=dtype).to(memory_format=memory_format)
    with torch.no_grad():
        shared = network(image)
    with torch.enable_grad():
        joined = network(image).detach()
    assert torch.equal(shared, joined)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_tail_in_strips_gives_what_the_whole_one_gives(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = RRDBNet(3, 3, scale=4, num_feat=8, num_block=1, num_grow_ch=4).double()
    network = network.to(memory_format=memory_format)  # type: ignore[call-overload]
    image = torch.rand(2, 3, 40, 10, dtype=torch.float64).to(memory_format=memory_format)
    heights: list[int] = []
    network.conv_last.register_forward_hook(lambda _, __, made: heights.append(made.shape[2]))
    with torch.inference_mode():
        whole = network(image)
        monkeypatch.setattr(strips, "STRIP_PX", 16 * 10)
        parted = network(image)
    assert heights == [160, 64, 64, 64]
    assert torch.allclose(parted, whole, rtol=0, atol=1e-12)


def test_gradients_flow_through_blocks() -> None:
    network = RRDBNet(3, 3, scale=4, num_feat=8, num_block=1, num_grow_ch=4)
    image = torch.rand(1, 3, 5, 5, requires_grad=True)
    network(image).sum().backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())


def test_the_trunk_of_a_shorter_network_keeps_the_images_precision() -> None:
    """Nearer to float32 than a network that rounds the sum after each block."""
    torch.manual_seed(0)
    exact = build_network("rrdb", rrdb_shape(scale=4, num_block=6, num_feat=16, num_grow_ch=8))
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        for layer in exact.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=(9 * layer.in_channels) ** -0.5)
        right = exact(image)
        short = copy.deepcopy(exact).bfloat16()
        kept, rounded = short(image), short(image.bfloat16())
    assert kept.dtype == torch.float32
    assert (kept - right).square().mean() < (rounded.float() - right).square().mean()


@pytest.mark.parametrize("height", [1, 7, 12, 13, 32, 33, 64, 255, 256, 257, 512, 799])
@pytest.mark.parametrize("width", [1, 16, 127, 128, 384, 512, 4096])
def test_strips_keep_every_row_once_and_see_what_its_result_depends_on(
    height: int, width: int
) -> None:
    rows, strips = plan_strips(height, width)
    kept = [row for strip in strips for row in range(strip.first, strip.last)]
    assert kept == list(range(height))
    for strip in strips:
        assert strip.start >= 0
        assert strip.start + rows <= height
        assert strip.start == 0 or strip.first - strip.start >= TAIL_RADIUS_PX
        end = strip.start + rows
        assert end == height or end - strip.last >= TAIL_RADIUS_PX
    assert rows * width <= STRIP_PX or rows <= MIN_CORE_ROWS + 2 * TAIL_RADIUS_PX


def test_a_window_within_the_limit_is_one_strip() -> None:
    assert len(plan_strips(256, 128)[1]) == 1
    assert len(plan_strips(257, 128)[1]) == 2
