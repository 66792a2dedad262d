from pathlib import Path

import pytest
import torch

from upscaled_models.errors import WeightsError
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.weights import build_network, mix_states, read_state

GENERAL = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[4.0]])}
WDN = {"a": torch.tensor([3.0, -2.0]), "b": torch.tensor([[0.0]])}


def test_every_weight_is_mixed_by_its_share() -> None:
    mixed = mix_states(GENERAL, WDN, 0.25)
    assert mixed["a"].tolist() == [2.5, -1.0]
    assert mixed["b"].tolist() == [[1.0]]


@pytest.mark.parametrize(("denoise", "expected"), [(1.0, GENERAL), (0.0, WDN)])
def test_the_ends_are_the_two_networks_themselves(
    denoise: float, expected: dict[str, torch.Tensor]
) -> None:
    mixed = mix_states(GENERAL, WDN, denoise)
    assert all(torch.equal(mixed[key], expected[key]) for key in expected)


@pytest.mark.parametrize("denoise", [-0.001, 1.001, float("nan")])
def test_a_share_out_of_range_is_refused(denoise: float) -> None:
    with pytest.raises(WeightsError, match=r"must be in 0\.\.1"):
        mix_states(GENERAL, WDN, denoise)


@pytest.mark.parametrize("other", [{"a": WDN["a"]}, {**WDN, "c": WDN["a"]}, {**WDN, "b": WDN["a"]}])
def test_networks_of_different_shapes_are_not_mixed(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"differ at [bc]"):
        mix_states(GENERAL, other, 0.5)


@pytest.mark.usefixtures("one_thread")
def test_denoise_removes_grain_step_by_step(shared_dir: Path) -> None:
    """On flat grey with noise, the more of the general network, the less noise is left."""
    states = []
    for name in ("realesr-general-x4v3", "realesr-general-wdn-x4v3"):
        path = shared_dir / "weights" / f"{name}.fp16.safetensors"
        if not path.is_file():
            pytest.skip(f"no {path}")
        states.append(read_state(path.read_bytes(), path))
    network = build_network("srvgg", srvgg_shape(upscale=4, num_conv=32)).eval()
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    image = (0.5 + 0.06 * noise).clamp(0, 1)
    grain = []
    for denoise in (1.0, 0.5, 0.0):
        network.load_state_dict(mix_states(states[0], states[1], denoise))
        with torch.no_grad():
            grain.append(float(network(image).std()))
    assert grain[0] < 0.8 * grain[1]
    assert grain[1] < 0.8 * grain[2]
