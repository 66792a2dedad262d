"""The ways our own kernel may run a model on an NVIDIA GPU, for tuning to choose from."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import torch
from torch import nn

from upscaled_models.autotune.accuracy import FLOAT_BARS
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.torch_candidates import open_torch
from upscaled_models.backends.cuda.kernel import Kernel, digest
from upscaled_models.backends.cuda.networks import (
    build_kernel_network,
    can_be_built,
    list_steps,
)
from upscaled_models.backends.device import Device
from upscaled_models.backends.loaded import LoadedModel
from upscaled_models.backends.torch.engine import Network, TorchEngine

RUNTIME: Final = "kernel"
_DTYPES: Final = (torch.float16, torch.bfloat16)


def kernel_candidates(model: LoadedModel, device: Device, precision: str) -> Sequence[Candidate]:
    """Both 16-bit types, where the device is an NVIDIA GPU and the network one that fits."""
    if not device.is_cuda or not can_be_built(model.network):
        return []
    return [
        Candidate(
            runtime=RUNTIME,
            dtype=str(dtype).removeprefix("torch."),
            threads=device.threads,
            version=f"{torch.__version__} {digest()}",
            bar=FLOAT_BARS[precision],
            open=partial(open_kernel, model, replace(device, dtype=dtype)),
        )
        for dtype in _DTYPES
    ]


def open_kernel(model: LoadedModel, device: Device) -> TorchEngine:
    """The model in the device's 16-bit dtype.

    Raises:
        KernelUnavailable: the kernel cannot be compiled for this GPU.
    """
    return open_torch(model, device, runtime=RUNTIME, place=_place)


def _place(network: nn.Module, device: Device) -> Network:
    kernel = Kernel(device.torch_device, device.dtype)
    kernel.prepare(list_steps(network, device.dtype))
    return build_kernel_network(network, device.dtype, device.torch_device, kernel)
