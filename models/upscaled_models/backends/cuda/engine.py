"""Opening a model with our own kernel on an NVIDIA GPU; torch's engine drives it."""

from upscaled_models.backends.base import LoadedModel
from upscaled_models.backends.cuda.kernel import Kernel
from upscaled_models.backends.cuda.networks import build_kernel_network, list_steps
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, build_engine

NAME = "kernel"
"""Of the backend in labels, as in "kernel float16"."""


def open_cuda(model: LoadedModel, device: Device) -> TorchEngine:
    """Open a model in the device's 16-bit dtype, all of its kernels compiled.

    Raises:
        BackendUnavailable: the kernel cannot be compiled for this GPU.
    """
    kernel = Kernel(device.torch_device, device.dtype)
    kernel.prepare(list_steps(model.network, device.dtype))
    network = build_kernel_network(model.network, device.dtype, device.torch_device, kernel)
    return build_engine(model, device, network, backend=NAME)
