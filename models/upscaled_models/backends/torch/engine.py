"""The engine that runs networks with torch: on CPUs, NVIDIA GPUs and Apple's."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscaled_models.backends.base import (
    Computed,
    EngineInfo,
    LoadedModel,
    Started,
    Window,
    is_deep,
    round_up,
)
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.pipeline import CudaStreams, Flight, Pipeline
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite

SMALL_BATCH: Final = 32
"""A few windows of an avatar leave most of a GPU idle; 32 windows of 64 px fill any."""

SHAPE_STEP_PX: Final = 16
"""Each new shape costs a few milliseconds once; a longer step would compute more for nothing."""

HIGHEST: Final = 65_535
"""The level of white in 16 bits. They are floats from the host on: Apple's GPUs have no integers of
that size, and others support few operations on them."""

Network = Callable[[Tensor], Tensor]
"""Maps `[N, 3, h, w]` in 0..1 to `[N, 3, h * native_scale, w * native_scale]`, both float32: where
weights are of a shorter type, the network converts."""


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """A network on a torch device (see `backends.base.Engine`).

    network: lies on `device`, in its dtype and in eval mode. exact_network: the same in float32,
    for windows that overflow a shorter type; it may lie elsewhere. pipeline: runs `network` on a
    CUDA GPU; without one, a batch is finished when it is started. is_strict: see `Tunable.strict`.
    """

    info: EngineInfo
    network: Network
    exact_network: nn.Module
    device: Device
    pipeline: Pipeline | None = None
    is_strict: bool = False

    @property
    def concurrent(self) -> "TorchEngine | None":
        return self if self.device.is_cpu else None

    def strict(self) -> Self:
        return replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> Self:
        info = replace(self.info, window_px=window_px, batch=batch, proof=proof)
        return replace(self, info=info, is_strict=False)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        if torch.get_num_threads() != self.device.threads:  # each calling thread has its own number
            torch.set_num_threads(self.device.threads)
        try:
            if is_deep(windows[0]):
                return Computed([self._run_deep(window, reduce) for window in windows])
            if self.pipeline is None or is_exact:
                return Computed(self._run_batch(windows, reduce, is_exact))
            return Launched(self, self.pipeline.launch(windows, reduce), reduce)
        except (torch.OutOfMemoryError, MemoryError) as error:
            shape = (len(windows), *windows[0].shape)
            self.make_room()
            raise EngineOutOfMemory(f"{shape} on {self.device}") from error

    def make_room(self) -> None:
        """Free the caches, so that the batch that failed may fit."""
        if self.pipeline is not None:
            self.pipeline.make_room()

    @torch.inference_mode()
    def _run_batch(self, windows: Sequence[Window], reduce: int, is_exact: bool) -> list[Window]:
        if is_exact:
            return [to_windows(self._run_exact(window), reduce)[0] for window in windows]
        result = self.network(to_input(windows, self.device.torch_device))
        is_finite = find_finite(result).tolist()
        return self.mend(windows, to_windows(result, reduce), is_finite, reduce)

    @torch.inference_mode()
    def mend(
        self,
        windows: Sequence[Window],
        finished: list[Window],
        is_finite: Sequence[bool],
        reduce: int,
    ) -> list[Window]:
        """Return `finished`, with each result that is not finite computed again in float32."""
        for at, window in enumerate(windows):
            if not is_finite[at]:
                if self.is_strict:
                    raise ResultNotFinite(f"{self.info.model}: not finite in {self.info.label}")
                (finished[at],) = to_windows(self._run_exact(window), reduce)
        return finished

    def _run_exact(self, window: Window) -> Tensor:
        """Run one window alone in float32: it is rare, and must fit where a batch did."""
        return self._compute_exact(to_input([window], self.device.torch_device))

    @torch.inference_mode()
    def _run_deep(self, window: Window, reduce: int) -> Window:
        """Run a window of 16 bits a channel in float32: shorter types keep 8 to 11 bits."""
        pixels = to_deep_input(window, self.device.torch_device)
        return to_deep_window(self._compute_exact(pixels), reduce)

    def _compute_exact(self, pixels: Tensor) -> Tensor:
        exact = self.exact_network.to(self.device.torch_device)
        result: Tensor = exact(pixels)
        if not bool(result.isfinite().all()):
            raise ResultNotFinite(f"{self.info.model}: result is not finite in float32")
        return result


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch on its way through a GPU (see `backends.base.Started`)."""

    engine: TorchEngine
    flight: Flight
    reduce: int

    @property
    def is_done(self) -> bool:
        return bool(self.flight.landed.query())  # type: ignore[no-untyped-call]

    def finish(self) -> list[Window]:
        self.flight.landed.synchronize()
        levels, is_finite = self.flight.results
        windows = list(self.flight.sources.numpy())
        try:
            finished = list(levels.numpy())
            return self.engine.mend(windows, finished, is_finite.tolist(), self.reduce)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self.engine.make_room()
            raise EngineOutOfMemory(f"{windows[0].shape} in float32") from error


def open_torch(model: LoadedModel, device: Device) -> TorchEngine:
    """Open a model with torch's own modules; on a CPU in float32 its network is shared."""
    network = _prepare(model.network)
    placed = network
    if device.dtype != torch.float32 or device.is_cuda:
        placed = copy.deepcopy(network).to(device=device.torch_device, dtype=device.dtype)
    return build_engine(model, device, placed)


def build_engine(
    model: LoadedModel, device: Device, network: Network, backend: str = "torch"
) -> TorchEngine:
    """Build the engine of a model around its `network` on `device`; `backend` is for its label."""
    pipeline = None
    if device.is_cuda:
        _set_up_cuda()
        pipeline = make_pipeline(network, device, CudaStreams(device.torch_device))
    info = EngineInfo(
        spec=model.spec,
        label=f"{backend} {str(device.dtype).removeprefix('torch.')}",
        window_px=model.window_px,
        shape_step_px=round_up(SHAPE_STEP_PX, model.spec.multiple_px),
        small_batch=SMALL_BATCH if device.is_cuda else 1,
        takes_new_shapes=device.is_cpu,
    )
    return TorchEngine(info, network, _prepare(model.network), device, pipeline)


def make_pipeline(network: Network, device: Device, streams: CudaStreams) -> Pipeline:
    """Build the pipeline that runs `network`, placed on the device, from bytes to bytes."""

    def compute(levels: Tensor, reduce: int) -> tuple[Tensor, Tensor]:
        result = network(to_pixels(levels))
        is_finite = find_finite(result)
        return to_levels(result, reduce), is_finite

    return Pipeline(compute, device.torch_device, streams)


def _prepare(network: nn.Module) -> nn.Module:
    prepared: nn.Module = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return prepared


def _set_up_cuda() -> None:
    """Switch TF32 off, and let cuDNN search for kernels: the few shapes are used often."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = True


def to_input(windows: Sequence[Window], device: torch.device) -> Tensor:
    """Convert uint8 windows `[h, w, 3]` to channels-last float32 `[N, 3, h, w]` in 0..1."""
    if len(windows) == 1:
        levels = np.require(windows[0][None], requirements=("C", "W"))  # torch warns of any other
    else:
        levels = np.stack(windows)
    return to_pixels(torch.from_numpy(levels).to(device))


def to_pixels(levels: Tensor) -> Tensor:
    """Convert uint8 `[N, h, w, 3]` to channels-last float32 `[N, 3, h, w]` in 0..1."""
    return levels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def to_windows(result: Tensor, reduce: int) -> list[Window]:
    """Convert a result as `to_levels` does, each window by itself in host memory."""
    return list(to_levels(result, reduce).cpu().numpy())


def to_levels(result: Tensor, reduce: int) -> Tensor:
    """Convert `[N, 3, h, w]` to uint8 `[N, h / reduce, w / reduce, 3]`: clamp, average, round.

    The result may be overwritten.
    """
    return _average(result, reduce, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_deep_input(window: Window, device: torch.device) -> Tensor:
    """Convert a uint16 window `[h, w, 3]` to channels-last float32 `[1, 3, h, w]` in 0..1."""
    levels = torch.from_numpy(window[None].astype(np.float32))
    return levels.to(device).permute(0, 3, 1, 2).div_(HIGHEST)


def to_deep_window(result: Tensor, reduce: int) -> Window:
    """Convert `[1, 3, h, w]` as `to_levels` does, to uint16 `[h / reduce, w / reduce, 3]`."""
    levels = _average(result, reduce, HIGHEST)[0].permute(1, 2, 0).contiguous()
    return np.asarray(levels.cpu().numpy().astype(np.uint16))


def find_finite(result: Tensor) -> Tensor:
    """Return whether each of `[N, ...]` is finite throughout, as bool `[N]`."""
    return result.isfinite().flatten(1).all(1)


def _average(result: Tensor, reduce: int, highest: int) -> Tensor:
    """Clamp to 0..1, average squares of `reduce` pixels, and scale to levels plus a half."""
    pixels = result.float().clamp_(0, 1)
    if reduce > 1:
        pixels = F.avg_pool2d(pixels, reduce)
    return pixels.mul_(highest).add_(0.5)
