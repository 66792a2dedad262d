"""Which device a worker computes on, in which precision and with how many threads."""

import os
from dataclasses import dataclass

import torch

from service.config import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Device:
    """A device and how it is used. `dtype` is the one the network's body runs in."""

    torch_device: torch.device
    dtype: torch.dtype
    threads: int

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"


def choose_device(settings: Settings) -> Device:
    """The device the settings name; `auto` is the first CUDA device where there is one.

    Raises:
        SettingsError: the settings name a device this machine does not have.
    """
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        _require_cuda(settings.device, device)
        return Device(device, torch.float16, _share_of_cores(settings))
    return Device(device, torch.float32, _share_of_cores(settings))


def _require_cuda(setting: str, device: torch.device) -> None:
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise SettingsError(f"UPSCALED_DEVICE={setting!r}: CUDA devices on this machine: {count}")


def _share_of_cores(settings: Settings) -> int:
    if settings.threads:
        return settings.threads
    return max(1, count_cores() // settings.workers)


def count_cores() -> int:
    """Cores this process may run on, where the system can tell; else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
