"""SPAN against its published code, and what its files may hold."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.reference.standins import PublishedCommunity
from upscaled_models.errors import WeightsError
from upscaled_models.families.span import span_shape
from upscaled_models.networks.span import TRAINING_MEAN, TRAINING_RANGE, fuse_state
from upscaled_models.weights import build_network, read_state, recognise_file

pytestmark = pytest.mark.usefixtures("one_thread")

State = dict[str, Tensor]


def publish(community: PublishedCommunity, scale: int, norm: bool) -> nn.Module:
    """Return a network of the published code with random weights, none of them near 0."""
    torch.manual_seed(scale)
    network: nn.Module = community.SPAN(
        num_in_ch=3, num_out_ch=3, feature_channels=12, upscale=scale, norm=norm
    )
    for value in network.parameters():
        nn.init.normal_(value, std=0.15)
    return network.eval()


def parts_of(state: State, name: str = "conv_1") -> State:
    """Make a SPAN file whose convolution of that name is in its published parts."""
    weight = state.pop(f"{name}.weight")
    state.pop(f"{name}.bias")
    outs, ins = weight.shape[:2]
    layers = {
        "sk": nn.Conv2d(ins, outs, 1),
        "conv.0": nn.Conv2d(ins, 2 * ins, 1),
        "conv.1": nn.Conv2d(2 * ins, 2 * outs, 3),
        "conv.2": nn.Conv2d(2 * outs, outs, 1),
        "eval_conv": nn.Conv2d(ins, outs, 3),
    }
    for part, layer in layers.items():
        state |= {f"{name}.{part}.{key}": value for key, value in layer.state_dict().items()}
    return state


def file_of(state: Any, path: Path) -> Path:
    torch.save({"params_ema": state}, path)
    return path


def made_up(features: int = 4) -> State:
    """Return a fused state dict without mean and gain."""
    torch.manual_seed(1)
    state = build_network("span", span_shape(scale=2, features=features)).state_dict()
    return {key: value for key, value in state.items() if key not in ("mean", "gain")}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("scale", [2, 4])
def test_output_is_the_published_networks_but_for_rounding(
    scale: int, norm: bool, community: PublishedCommunity, tmp_path: Path
) -> None:
    theirs = publish(community, scale, norm)
    path = file_of(theirs.state_dict(), tmp_path / "theirs.pth")
    family, shape = recognise_file(path)
    assert (family, shape) == ("span", span_shape(scale, 12))
    ours = build_network(family, shape)
    ours.load_state_dict(read_state(path.read_bytes(), path))
    image = torch.rand(2, 3, 19, 23)
    with torch.no_grad():
        got, expected = ours(image), theirs(image)
    assert expected.abs().max() > 0.5
    assert (got - expected).norm() < 1e-6 * expected.norm()


def test_the_parts_of_a_convolution_are_summed_up_exactly() -> None:
    state = parts_of(made_up())
    sk, first, middle, last = (
        (state[f"conv_1.{part}.weight"].double(), state[f"conv_1.{part}.bias"].double())
        for part in ("sk", "conv.0", "conv.1", "conv.2")
    )
    image = torch.rand(1, 3, 9, 8, dtype=torch.float64)
    padded = nn.functional.pad(image, (1, 1, 1, 1))
    y = nn.functional.conv2d(nn.functional.conv2d(padded, *first), *middle)
    expected = nn.functional.conv2d(y, *last) + nn.functional.conv2d(image, *sk)
    fused = fuse_state(state)
    weight, bias = fused["conv_1.weight"].double(), fused["conv_1.bias"].double()
    got = nn.functional.conv2d(image, weight, bias, padding=1)
    assert (got - expected).abs().max() < 1e-6


def test_only_a_file_marked_no_norm_is_not_normalised() -> None:
    state = parts_of(made_up())
    normalised = fuse_state(state)
    assert normalised["mean"].tolist() == pytest.approx(list(TRAINING_MEAN))
    assert normalised["gain"].tolist() == [TRAINING_RANGE]
    plain = fuse_state(state | {"no_norm": torch.zeros(1)})
    assert plain["mean"].tolist() == [0, 0, 0]
    assert plain["gain"].tolist() == [1]


def test_fusing_leaves_a_fused_state_and_other_networks_unchanged() -> None:
    whole = build_network("span", span_shape(scale=2, features=4)).state_dict()
    other = {"conv_first.sk.weight": torch.zeros(1)}
    for state in (whole, other):
        fused = fuse_state(state)
        assert fused.keys() == state.keys()
        assert all(fused[key] is state[key] for key in state)


def test_a_convolution_that_a_file_holds_whole_is_kept_whole() -> None:
    state = made_up()
    weight, bias = state.pop("conv_2.weight"), state.pop("conv_2.bias")
    fused = fuse_state(state | {"conv_2.eval_conv.weight": weight, "conv_2.eval_conv.bias": bias})
    assert torch.equal(fused["conv_2.weight"], weight)
    assert torch.equal(fused["conv_2.bias"], bias)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv_1.conv.1.bias": None}, r"a SPAN network, but conv_1\.conv\.1\.bias is missing"),
        ({"conv_1.sk.weight": None}, r"conv_1\.sk\.weight is missing"),
        (
            {"conv_1.conv.2.weight": torch.zeros(4, 9, 1, 1)},
            r"conv_1: its parts do not fit together: \(4, 3, 1, 1\), .*\(4, 9, 1, 1\)",
        ),
        ({"conv_1.conv.0.weight": torch.zeros(6)}, "conv_1: its parts do not fit together"),
        ({"block_7.c1_r.weight": torch.zeros(4, 4, 3, 3)}, "block_7.c1_r.weight belongs to no"),
        ({"block_6.c3_r.weight": None}, r"block_6\.c3_r\.weight is missing"),
        ({"upsampler.0.weight": torch.zeros(13, 4, 3, 3)}, "13 channels out"),
    ],
)
def test_a_file_that_is_not_quite_one_is_refused_with_the_reason(
    change: dict[str, Tensor | None], reason: str, tmp_path: Path
) -> None:
    state: dict[str, Tensor | None] = {**parts_of(made_up()), **change}
    path = file_of({k: v for k, v in state.items() if v is not None}, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match=reason):
        recognise_file(path)


def test_shorter_weights_on_a_float32_image_lose_little() -> None:
    """The picture is normalised before it is rounded."""
    state = fuse_state(parts_of(made_up(features=16)))
    network = build_network("span", span_shape(scale=2, features=16))
    network.load_state_dict(state)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        right, short = network(image), network.bfloat16()(image)
    assert short.dtype == torch.float32
    assert (short - right).norm() < 0.02 * right.norm()
