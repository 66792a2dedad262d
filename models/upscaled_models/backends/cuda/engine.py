"""Open a model on the CUDA kernel, as an engine of torch."""

from typing import Final

import torch
from torch import nn

from upscaled_models.backends.base import LoadedModel
from upscaled_models.backends.cuda.kernel import Kernel
from upscaled_models.backends.cuda.layout import CHUNK_CHANNELS, PLANE_CHANNELS
from upscaled_models.backends.cuda.step import KernelModule, KernelStep, Target
from upscaled_models.backends.cuda.tiling import COLUMNS
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, build_engine
from upscaled_models.errors import BackendUnavailable

LEAST_SIDE_PX: Final = 4
"""Side of a picture that every network can fold."""

MAX_CHANNELS: Final = PLANE_CHANNELS * max(COLUMNS)


def open_cuda(model: LoadedModel, device: Device) -> TorchEngine:
    """Open a model in the device's 16-bit dtype, all of its kernels compiled.

    Raises:
        BackendUnavailable: the kernel has no such layers, or cannot be compiled for this GPU.
    """
    if not isinstance(model.network, KernelModule):
        raise BackendUnavailable(f"no kernel runs a {type(model.network).__name__}")
    kernel = Kernel(device.torch_device, device.dtype)
    kernel.prepare(list_steps(model.network, device.dtype))
    network = model.network.to_kernel(Target(device.dtype, device.torch_device, kernel))
    return build_engine(model, device, network, backend="kernel")


def can_be_built(network: nn.Module) -> bool:
    """Return whether the kernel supports all layers of a network."""
    if not isinstance(network, KernelModule):
        return False
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    inner = {layer.out_channels for layer in layers[:-1]} | {layers[1].in_channels}
    return layers[-1].out_channels <= MAX_CHANNELS and all(
        channels <= MAX_CHANNELS
        and channels % CHUNK_CHANNELS == 0
        and channels // PLANE_CHANNELS in COLUMNS
        for channels in inner
    )


@torch.inference_mode()
def list_steps(network: KernelModule, dtype: torch.dtype) -> list[KernelStep]:
    """List a network's steps, on tensors without values, so that they can be compiled ahead."""
    steps: list[KernelStep] = []
    nowhere = torch.device("meta")
    network.to_kernel(Target(dtype, nowhere, steps.append))(
        torch.empty((1, 3, LEAST_SIDE_PX, LEAST_SIDE_PX), device=nowhere)
    )
    return steps
