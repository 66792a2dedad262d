"""Every family through the kernel's steps, which torch does here, against the network's modules."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.models.backends.cuda.torch_launcher import launch_with_torch
from upscaled_models.backends.cuda.engine import can_be_built, list_steps
from upscaled_models.backends.cuda.step import KernelModule, KernelStep, Target
from upscaled_models.networks.compact import SRVGGNetCompact
from upscaled_models.networks.plain import PlainNet
from upscaled_models.networks.rrdb import RRDBNet

CPU = torch.device("cpu")
NETWORKS: dict[str, Callable[[], KernelModule]] = {
    "rrdb x4": lambda: RRDBNet(3, 3, 4, num_block=2),
    "rrdb x2": lambda: RRDBNet(3, 3, 2, num_block=1),
    "rrdb x1": lambda: RRDBNet(3, 3, 1, num_block=1),
    "compact prelu": lambda: SRVGGNetCompact(num_conv=3),
    "compact relu": lambda: SRVGGNetCompact(num_conv=2, act_type="relu"),
    "compact leakyrelu": lambda: SRVGGNetCompact(num_conv=2, upscale=2, act_type="leakyrelu"),
    "plain x4": lambda: PlainNet(48, 3, 4),
    "plain x2": lambda: PlainNet(48, 2, 2),
    "plain x2 folded": lambda: PlainNet(48, 2, 2, fold=2),
}


def make(name: str) -> KernelModule:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for layer in network.modules():
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, -0.2, 0.5)
    return network


QUICK_NETWORKS = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "rrdb x4" else ()) for name in NETWORKS],
)


@QUICK_NETWORKS
@torch.inference_mode()
def test_a_network_is_the_same_through_the_kernels_steps(name: str) -> None:
    network = make(name)
    pixels = torch.rand(2, 3, 12, 20)

    built = network.to_kernel(Target(torch.float32, CPU, launch_with_torch))

    assert can_be_built(network)
    torch.testing.assert_close(built(pixels), network(pixels), rtol=1e-4, atol=2e-6)


@QUICK_NETWORKS
@torch.inference_mode()
def test_the_error_in_sixteen_bits_is_no_larger_than_in_torch(name: str) -> None:
    network, short = make(name), make(name).half()
    pixels = torch.rand(1, 3, 12, 16)
    expected = network(pixels)

    built = network.to_kernel(Target(torch.float16, CPU, launch_with_torch))

    error = (built(pixels) - expected).abs().mean()
    assert 0 < error <= 1.2 * (short(pixels) - expected).abs().mean()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_steps_of_a_network_are_known_before_it_runs(name: str) -> None:
    network = make(name)
    taken: list[KernelStep] = []

    target = Target(torch.float16, torch.device("meta"), taken.append)
    network.to_kernel(target)(torch.empty(2, 3, 8, 12, device="meta"))

    listed = list_steps(network, torch.float16)
    assert [describe(step) for step in listed] == [describe(step) for step in taken]


def describe(step: KernelStep) -> tuple[object, ...]:
    outputs = (step.planes, step.trunk, step.picture, step.residual, step.shortcut)
    return step.layer.columns, step.is_doubled, *(each is not None for each in outputs)


@pytest.mark.parametrize("name", ["plain x4", "plain x2 folded"])
@torch.inference_mode()
def test_flat_colour_stays_exact_through_a_plain_network(name: str) -> None:
    flat = torch.full((1, 3, 12, 12), 200 / 255)

    built = make(name).to_kernel(Target(torch.bfloat16, CPU, launch_with_torch))

    assert ((built(flat) * 255).round() == 200).all()


@pytest.mark.parametrize(
    "network",
    [
        RRDBNet(3, 3, 4, num_feat=24, num_block=1, num_grow_ch=32),
        SRVGGNetCompact(num_feat=96, num_conv=1),
        PlainNet(40, 1, 4),
        nn.Conv2d(3, 3, 3),
    ],
    ids=["rrdb of 24", "compact of 96", "plain of 40", "no network of ours"],
)
def test_networks_of_other_widths_are_computed_by_torch(network: nn.Module) -> None:
    assert not can_be_built(network)
