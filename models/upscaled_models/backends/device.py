"""Which device a worker computes on, in which precision and with how many threads."""

from dataclasses import dataclass

import torch

from upscaled.config import Settings, SettingsError
from upscaled.cores import count_cores


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
    """The device the settings name; `auto` is the first GPU, of NVIDIA or Apple, or the CPU.

    Raises:
        SettingsError: the settings name a device this machine does not have.
    """
    device = torch.device(_find_best() if settings.device == "auto" else settings.device)
    if device.type == "cuda":
        _require_cuda(settings.device, device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(f"UPSCALED_DEVICE={settings.device!r}: this machine has no Apple GPU")
    is_short = device.type != "cpu" and settings.precision != "exact"
    dtype = torch.float16 if is_short else torch.float32
    return Device(device, dtype, _share_of_cores(settings))


def has_free_cores(settings: Settings) -> bool:
    """Whether the network leaves the processor's cores to others.

    Raises:
        SettingsError: as `choose_device`.
    """
    return choose_device(settings).torch_device.type != "cpu"


def _find_best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _require_cuda(setting: str, device: torch.device) -> None:
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise SettingsError(f"UPSCALED_DEVICE={setting!r}: CUDA devices on this machine: {count}")


def _share_of_cores(settings: Settings) -> int:
    if settings.threads:
        return settings.threads
    return max(1, count_cores() // settings.workers)
