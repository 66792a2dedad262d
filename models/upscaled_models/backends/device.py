"""The device that a network runs on: its type, its CPU threads, and a limit on a GPU's memory.

`python -m upscaled_models.backends.device` prints the number of NVIDIA GPUs, for a front end, which
loads no torch.
"""

import sys
from dataclasses import dataclass

import torch

from upscaled_models.errors import DeviceUnavailable


@dataclass(frozen=True, slots=True)
class Device:
    """A device, the type of the network's weights, and the CPU threads that one engine has."""

    torch_device: torch.device
    dtype: torch.dtype
    threads: int

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    def describe(self) -> str:
        """Return what measurements depend on: a GPU's name and CUDA's version, else the kind."""
        if self.is_cuda:
            return f"{torch.cuda.get_device_name(self.torch_device)} CUDA {torch.version.cuda}"
        return self.torch_device.type


def choose_device(name: str, *, is_exact: bool, threads: int) -> Device:
    """Find the device "cpu", "cuda", "cuda:N" or "mps"; `auto` is the first GPU, or the CPU.

    Args:
        is_exact: compute in float32 on GPUs too, instead of in float16.

    Raises:
        DeviceUnavailable: this machine has no such device.
    """
    device = torch.device(_find_best() if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise DeviceUnavailable(f"CUDA devices on this machine: {count}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("this machine has no Apple GPU")
    is_short = device.type != "cpu" and not is_exact
    return Device(device, torch.float16 if is_short else torch.float32, threads)


def _find_best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def count_gpus() -> int:
    """Return how many NVIDIA GPUs torch can use here, of those in `CUDA_VISIBLE_DEVICES`."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def limit_gpu_memory(device: str, limit_bytes: int) -> None:
    """Limit the GPU memory of this process, not counting some hundred megabytes of the context.

    Beyond the limit torch raises its out-of-memory error. device: "cuda", the first GPU, or
    "cuda:N".
    """
    total_bytes = int(torch.cuda.get_device_properties(device).total_memory)
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total_bytes), device)


if __name__ == "__main__":
    sys.stdout.write(f"{count_gpus()}\n")
