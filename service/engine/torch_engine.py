"""The engine that runs networks with torch, on CPU and CUDA."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.engine.device import Device
from service.engine.engine import EngineOutOfMemory, Window
from service.errors import InternalError


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """A network on a torch device (see `service.engine.engine.Engine`).

    `network` maps `[N, 3, h, w]` in 0..1 to `[N, 3, h * native_scale, w * native_scale]`, lies on
    `device` in its dtype and in eval mode. `exact_network` is the same in float32, for windows
    that overflow a shorter type; it may lie elsewhere. `input_dtype` is what `network` is given.
    """

    model: str
    network: nn.Module
    exact_network: nn.Module
    device: Device
    input_dtype: torch.dtype
    native_scale: int
    window_px: int
    halo_px: int
    multiple_px: int

    def run(self, windows: Iterable[Window], reduce: int = 1) -> Iterator[Window]:
        for window in windows:
            try:
                result = self._run_one(window, reduce)
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise EngineOutOfMemory(f"{window.shape} on {self.device}") from error
            yield result

    @torch.inference_mode()
    def _run_one(self, window: Window, reduce: int) -> Window:
        result = self.network(to_input(window, self.device.torch_device, self.input_dtype))
        if not bool(result.isfinite().all()):
            result = self._run_exact(window)
        return to_window(result, reduce)

    def _run_exact(self, window: Window) -> Tensor:
        exact = self.exact_network.to(self.device.torch_device)
        result: Tensor = exact(to_input(window, self.device.torch_device, torch.float32))
        if not bool(result.isfinite().all()):
            raise InternalError(detail=f"{self.model}: result is not finite in float32")
        return result


def build_engine(
    network: nn.Module,
    device: Device,
    *,
    model: str,
    native_scale: int,
    window_px: int,
    halo_px: int,
    multiple_px: int,
    takes_float32: bool = False,
) -> TorchEngine:
    """An engine from a float32 network on the CPU, which it takes over.

    takes_float32: the network wants float32 pixels though its weights have the device's shorter
        type, and mixes the two itself.
    """
    torch.set_num_threads(device.threads)
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEngine(
        model=model,
        network=_place(network, device),
        exact_network=network,
        device=device,
        input_dtype=torch.float32 if takes_float32 else device.dtype,
        native_scale=native_scale,
        window_px=window_px,
        halo_px=halo_px,
        multiple_px=multiple_px,
    )


def _place(network: nn.Module, device: Device) -> nn.Module:
    if device.dtype == torch.float32 and not device.is_cuda:
        return network
    return copy.deepcopy(network).to(device=device.torch_device, dtype=device.dtype)


def to_input(window: Window, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 `[h, w, 3]` to channels-last `[1, 3, h, w]` in 0..1; it travels as bytes."""
    writable = np.require(window, requirements=("C", "W"))  # torch warns of any other
    pixels = torch.from_numpy(writable).to(device).permute(2, 0, 1).unsqueeze(0)
    return pixels.to(dtype).div_(255)


def to_window(result: Tensor, reduce: int) -> Window:
    """`[1, 3, h, w]` to uint8 `[h / reduce, w / reduce, 3]`: clamp, average, round to nearest."""
    result = result.float().clamp_(0, 1)
    if reduce > 1:
        result = F.avg_pool2d(result, reduce)
    levels = result.mul_(255).add_(0.5).to(torch.uint8)
    window: Window = levels[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return window
