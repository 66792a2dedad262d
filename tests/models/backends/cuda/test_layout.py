import pytest
import torch

from tests.models.backends.cuda.torch_launcher import from_planes, unpack_weights
from upscaled_models.backends.cuda.layout import (
    RING_PX,
    PlaneLayout,
    make_planes,
    pack_weights,
    to_planes,
)


@pytest.mark.parametrize(("outputs", "inputs"), [(8, 16), (32, 64), (64, 192), (48, 48)])
def test_weights_are_unpacked_unchanged(outputs: int, inputs: int) -> None:
    weight = torch.randn(outputs, inputs, 3, 3)

    assert torch.equal(unpack_weights(pack_weights(weight, torch.float32)), weight)


def test_weights_of_missing_input_channels_are_zero() -> None:
    weight = torch.randn(8, 3, 3, 3)

    unpacked = unpack_weights(pack_weights(weight, torch.float32))

    assert torch.equal(unpacked[:, :3], weight)
    assert unpacked.shape == (8, 16, 3, 3)
    assert not unpacked[:, 3:].any()


def test_a_lane_holds_the_weights_of_its_fragment_of_the_product() -> None:
    """PTX ISA, m16n8k16, matrix B: lane = 4 * column + pair; rows 2 * pair, + 1, + 8, + 9."""
    weight = torch.arange(8 * 16 * 9, dtype=torch.float32).reshape(8, 16, 3, 3)

    packed = pack_weights(weight, torch.float32)

    assert packed.shape == (1, 9, 1, 32, 4)
    for tap, lane in ((0, 0), (4, 13), (8, 31)):
        column, pair = divmod(lane, 4)
        rows = [2 * pair, 2 * pair + 1, 2 * pair + 8, 2 * pair + 9]
        expected = weight[column, rows, tap // 3, tap % 3]
        assert torch.equal(packed[0, tap, 0, lane], expected)


@pytest.mark.parametrize("channels", [3, 12, 16, 48])
def test_pixels_are_read_back_from_planes_and_missing_channels_are_zero(channels: int) -> None:
    layout = PlaneLayout(5, 70)
    pixels = torch.randn(2, channels, 5, 70)

    back = from_planes(to_planes(pixels, layout, torch.float32), layout)

    assert torch.equal(back[:, :channels], pixels)
    assert back.shape[1] % 16 == 0
    assert not back[:, channels:].any()


def test_the_ring_around_pixels_is_zero_wherever_they_end() -> None:
    layout = PlaneLayout(17, 30)
    planes = make_planes(1, 8, layout, torch.float32, torch.device("cpu"))
    inside = planes[:, :, RING_PX:-RING_PX, RING_PX:-RING_PX]

    assert inside.shape[2] >= layout.height
    for ring in (planes[:, :, 0], planes[:, :, 18], planes[:, :, :, 0], planes[:, :, :, 31]):
        assert not ring.any()


def test_planes_hold_whole_tiles() -> None:
    layout = PlaneLayout(17, 65)

    assert (layout.rows, layout.pitch) == (32 + 2, 128 + 2)
    assert (layout.doubled().height, layout.doubled().width) == (34, 130)
