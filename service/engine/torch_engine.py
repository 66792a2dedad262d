"""The engine that runs networks with torch, on CPU and CUDA."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.engine.device import Device
from service.engine.engine import EngineOutOfMemory, Started, Window, round_up
from service.errors import InternalError

SHAPE_STEP_PX: Final = 16
"""Each new shape costs a few milliseconds once; a longer step would compute more for nothing."""


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """A network on a torch device (see `service.engine.engine.Engine`).

    `network` maps `[N, 3, h, w]` in 0..1 to `[N, 3, h * native_scale, w * native_scale]`, lies on
    `device` in its dtype and in eval mode. `exact_network` is the same in float32, for windows
    that overflow a shorter type; it may lie elsewhere. `input_dtype` is what `network` is given.
    `is_strict`: such windows raise `InternalError` instead.
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
    shape_step_px: int
    batch: int
    proof: str = ""
    is_strict: bool = False

    def strict(self) -> Self:
        return replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> Self:
        return replace(self, window_px=window_px, batch=batch, proof=proof, is_strict=False)

    @property
    def label(self) -> str:
        return f"torch {str(self.device.dtype).removeprefix('torch.')}"

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        try:
            return Computed(self._run_batch(windows, reduce, is_exact))
        except (torch.OutOfMemoryError, MemoryError) as error:
            shape = (len(windows), *windows[0].shape)
            raise EngineOutOfMemory(f"{shape} on {self.device}") from error

    def run(self, windows: Iterable[Window], reduce: int = 1) -> Iterator[Window]:
        for window in windows:
            yield from self.start([window], reduce).finish()

    @torch.inference_mode()
    def _run_batch(self, windows: Sequence[Window], reduce: int, is_exact: bool) -> list[Window]:
        if is_exact:
            return [to_windows(self._run_exact(window), reduce)[0] for window in windows]
        result = self.network(to_input(windows, self.device.torch_device, self.input_dtype))
        is_finite = result.isfinite().flatten(1).all(1).tolist()
        finished = to_windows(result, reduce)
        for at, window in enumerate(windows):
            if not is_finite[at]:
                if self.is_strict:
                    raise InternalError(detail=f"{self.model}: not finite in {self.label}")
                (finished[at],) = to_windows(self._run_exact(window), reduce)
        return finished

    def _run_exact(self, window: Window) -> Tensor:
        """In float32 alone, one window at a time: it is rare, and must fit where a batch did."""
        exact = self.exact_network.to(self.device.torch_device)
        result: Tensor = exact(to_input([window], self.device.torch_device, torch.float32))
        if not bool(result.isfinite().all()):
            raise InternalError(detail=f"{self.model}: result is not finite in float32")
        return result


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch that was finished when it was started (see `service.engine.engine.Started`)."""

    windows: list[Window]
    is_done: bool = True

    def finish(self) -> list[Window]:
        return self.windows


def build_engine(
    network: nn.Module,
    device: Device,
    *,
    model: str,
    native_scale: int,
    window_px: int,
    halo_px: int,
    multiple_px: int,
    batch: int = 1,
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
        shape_step_px=round_up(SHAPE_STEP_PX, multiple_px),
        batch=batch,
    )


def _place(network: nn.Module, device: Device) -> nn.Module:
    if device.dtype == torch.float32 and not device.is_cuda:
        return network
    return copy.deepcopy(network).to(device=device.torch_device, dtype=device.dtype)


def to_input(windows: Sequence[Window], device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 `[h, w, 3]` each to channels-last `[N, 3, h, w]` in 0..1; they travel as bytes."""
    if len(windows) == 1:
        pixels = np.require(windows[0][None], requirements=("C", "W"))  # torch warns of any other
    else:
        pixels = np.stack(windows)
    levels = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
    return levels.to(dtype).div_(255)


def to_windows(result: Tensor, reduce: int) -> list[Window]:
    """`[N, 3, h, w]` to N of uint8 `[h / reduce, w / reduce, 3]`: clamp, average, round."""
    result = result.float().clamp_(0, 1)
    if reduce > 1:
        result = F.avg_pool2d(result, reduce)
    levels = result.mul_(255).add_(0.5).to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).contiguous().cpu().numpy())
