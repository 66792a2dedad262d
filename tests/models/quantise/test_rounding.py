import numpy as np
import pytest
import torch

from upscaled_models.backends.openvino.layers import Convolution, Floats
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.quantise.rounding import InputLevels, cut_to_half, is_among, round_layers
from upscaled_models.weights import build_network, state_of

SHAPE = rrdb_shape(scale=4, num_block=2, num_feat=8, num_grow_ch=4)


def state_of_small_network() -> dict[str, Floats]:
    torch.manual_seed(4)
    return state_of(build_network("rrdb", SHAPE))


def levels_of(state: dict[str, Floats]) -> dict[str, InputLevels]:
    """Some levels for each group of layers."""
    groups = {
        name.removesuffix(".weight").rpartition(".conv")[0] if ".rdb" in name else name[:-7]: value
        for name, value in state.items()
        if value.ndim == 4
    }
    return {
        name: InputLevels(np.linspace(0.5, 2, weight.shape[1]).astype(np.float16), -1.0, 1.55)
        for name, weight in groups.items()  # the last of a block reads the most
    }


def test_a_rounded_weight_is_within_half_a_step_of_what_reads_the_divided_input() -> None:
    state = state_of_small_network()
    rounded = round_layers(state, levels_of(state), ()).convolutions["body.1.rdb2.conv3"]
    assert rounded.quantised is not None
    assert rounded.quantised.input_scale is not None
    step = rounded.quantised.weight_scale.reshape(-1, 1, 1, 1)
    scale = rounded.quantised.input_scale.reshape(1, -1, 1, 1)
    wanted = state["body.1.rdb2.conv3.weight"] * scale
    assert np.abs(rounded.weight * step - wanted).max() <= step.max() * 0.5001
    assert np.abs(rounded.weight).max(axis=(1, 2, 3)).tolist() == [127] * 4


def test_layers_and_whole_blocks_can_stay_in_floats() -> None:
    state = state_of_small_network()
    layers = round_layers(state, levels_of(state), ("body.1", "conv_hr"))
    floats = {name for name, each in layers.convolutions.items() if each.quantised is None}
    assert "conv_hr" in floats
    assert {name for name in layers.convolutions if name.startswith("body.1.")} < floats
    assert len(floats) == 16
    unchanged: Convolution = layers.convolutions["conv_hr"]
    np.testing.assert_array_equal(unchanged.weight, state["conv_hr.weight"])


def test_a_block_is_no_part_of_one_whose_number_begins_alike() -> None:
    assert is_among("body.1.rdb1.conv1", ("body.1",))
    assert not is_among("body.12.rdb1.conv1", ("body.1",))


def test_levels_that_are_missing_are_named() -> None:
    with pytest.raises(KeyError, match="conv_first"):
        round_layers(state_of_small_network(), {}, ("body", "conv_body"))


def test_weights_are_cut_to_half_towards_zero_and_biases_kept() -> None:
    exact = np.float32(1.0009765625)  # the next float16 after 1
    above = np.nextafter(exact, np.float32(2))
    below = np.nextafter(exact, np.float32(0))
    weight = np.array([exact, above, below, -below, 0], np.float32).reshape(1, 5, 1, 1)
    cut = cut_to_half({"a.weight": weight, "a.bias": weight.ravel()})
    assert cut["a.weight"].ravel().tolist() == [exact, exact, 1.0, -1.0, 0]
    np.testing.assert_array_equal(cut["a.bias"], weight.ravel())
    np.testing.assert_array_equal(cut_to_half(cut)["a.weight"], cut["a.weight"])
