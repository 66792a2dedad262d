from torch import nn

from scripts.benchmark.contestant import Entry
from scripts.benchmark.ours import count_gflop
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.weights import build_network


def test_a_convolution_costs_two_operations_for_each_weight_and_result_pixel() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.PReLU(5))
    assert (
        count_gflop(network, Entry("ours:Ours", height_px=10, width_px=20)) * 1e9
        == 2 * (3 * 5 * 9) * 10 * 20
    )


def test_groups_share_the_weights_out() -> None:
    network = nn.Conv2d(3, 6, 3, padding=1, groups=3)
    assert (
        count_gflop(network, Entry("ours:Ours", height_px=10, width_px=20)) * 1e9
        == 2 * (6 * 1 * 9) * 10 * 20
    )


def test_the_compact_network_of_general_x4v3_costs_two_and_a_half_megaflop_a_pixel() -> None:
    network = build_network("srvgg", srvgg_shape(4, 32))
    weights = 9 * (3 * 64 + 32 * 64 * 64 + 64 * 48)
    assert count_gflop(network, Entry("ours:Ours", height_px=1, width_px=1)) * 1e9 == 2 * weights


def test_layers_on_finer_grids_count_for_each_pixel_of_the_grid() -> None:
    network = build_network("rrdb", rrdb_shape(4, num_block=0, num_feat=4))
    trunk = 9 * (3 * 4 + 4 * 4)
    behind = 9 * (4 * 4 * 4 + 16 * (4 * 4 + 4 * 4 + 4 * 3))
    assert (
        count_gflop(network, Entry("ours:Ours", height_px=6, width_px=7)) * 1e9
        == 2 * (trunk + behind) * 6 * 7
    )


def test_counting_leaves_the_network_as_it_is() -> None:
    network = build_network("plain", plain_shape(4, layers=1, features=4))
    count_gflop(network, Entry("ours:Ours", height_px=9, width_px=9))
    assert {str(weight.device) for weight in network.parameters()} == {"cpu"}
