"""The engine that runs networks with torch: on CPUs, NVIDIA GPUs and Apple's."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscaled.errors import InternalError
from upscaled.image.pixels import is_deep
from upscaled_models.backends.base import EngineOutOfMemory, Started, Window, round_up
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.deep import to_deep_input, to_deep_window
from upscaled_models.backends.torch.pipeline import Flight, Pipeline
from upscaled_models.backends.torch.streams import CudaSeam, Seam

SMALL_BATCH: Final = 32
"""A few windows of an avatar leave most of a GPU idle; so many of 64 px fill any."""

Network = Callable[[Tensor], Tensor]
Place = Callable[[nn.Module, Device], Network]

SHAPE_STEP_PX: Final = 16
"""Each new shape costs a few milliseconds once; a longer step would compute more for nothing."""


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """A network on a torch device (see `upscaled_models.backends.base.Engine`).

    `network` maps `[N, 3, h, w]` in 0..1 to `[N, 3, h * native_scale, w * native_scale]`, lies on
    `device` in its dtype and in eval mode; `runtime` names what runs it. `exact_network` is the
    same in float32, for windows that overflow a shorter type; it may lie elsewhere. `input_dtype`
    is what `network` is given. `is_strict`: such windows raise `InternalError` instead. `pipeline`:
    of a GPU that computes by itself; without one, a batch is finished when it is started.
    """

    model: str
    network: Network
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
    runtime: str = "torch"
    is_strict: bool = False
    pipeline: Pipeline | None = None

    def strict(self) -> Self:
        return replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> Self:
        return replace(self, window_px=window_px, batch=batch, proof=proof, is_strict=False)

    @property
    def small_batch(self) -> int:
        return self.batch if self.pipeline is None else max(self.batch, SMALL_BATCH)

    @property
    def label(self) -> str:
        return f"{self.runtime} {str(self.device.dtype).removeprefix('torch.')}"

    @property
    def aside(self) -> "TorchEngine | None":
        return self if self.device.torch_device.type == "cpu" else None

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
        """Let go of what is kept only for speed, so that what failed may fit."""
        if self.pipeline is not None:
            self.pipeline.make_room()

    @torch.inference_mode()
    def _run_batch(self, windows: Sequence[Window], reduce: int, is_exact: bool) -> list[Window]:
        if is_exact:
            return [to_windows(self._run_exact(window), reduce)[0] for window in windows]
        result = self.network(to_input(windows, self.device.torch_device, self.input_dtype))
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
        """`finished`, with those of `windows` that are not finite computed again in float32."""
        for at, window in enumerate(windows):
            if not is_finite[at]:
                if self.is_strict:
                    raise InternalError(detail=f"{self.model}: not finite in {self.label}")
                (finished[at],) = to_windows(self._run_exact(window), reduce)
        return finished

    def _run_exact(self, window: Window) -> Tensor:
        """In float32 alone, one window at a time: it is rare, and must fit where a batch did."""
        return self._compute_exact(to_input([window], self.device.torch_device, torch.float32))

    @torch.inference_mode()
    def _run_deep(self, window: Window, reduce: int) -> Window:
        """16 bits a channel: shorter types have 8 to 11."""
        pixels = to_deep_input(window, self.device.torch_device)
        return to_deep_window(self._compute_exact(pixels), reduce)

    def _compute_exact(self, pixels: Tensor) -> Tensor:
        exact = self.exact_network.to(self.device.torch_device)
        result: Tensor = exact(pixels)
        if not bool(result.isfinite().all()):
            raise InternalError(detail=f"{self.model}: result is not finite in float32")
        return result


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch that was finished when it was started (see `backends.base.Started`)."""

    windows: list[Window]
    is_done: bool = True

    def finish(self) -> list[Window]:
        return self.windows


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch on its way through a GPU (see `backends.base.Started`)."""

    engine: TorchEngine
    flight: Flight
    reduce: int

    @property
    def is_done(self) -> bool:
        return self.flight.landed.query()

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
    runtime: str = "torch",
    place: Place | None = None,
) -> TorchEngine:
    """An engine from a float32 network on the CPU, which it takes over.

    takes_float32: the network wants float32 pixels though its weights have the device's shorter
        type, and mixes the two itself. place: makes what runs on the device, by `runtime`; without
        it, torch runs the network's own modules.
    """
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    placed = (place or _place)(network, device)
    input_dtype = torch.float32 if takes_float32 else device.dtype
    if device.is_cuda:
        _set_up_cuda()
        seam = CudaSeam(device.torch_device)
    return TorchEngine(
        model=model,
        network=placed,
        exact_network=network,
        device=device,
        input_dtype=input_dtype,
        pipeline=make_pipeline(placed, device, input_dtype, seam) if device.is_cuda else None,
        native_scale=native_scale,
        window_px=window_px,
        halo_px=halo_px,
        multiple_px=multiple_px,
        shape_step_px=round_up(SHAPE_STEP_PX, multiple_px),
        batch=batch,
        runtime=runtime,
    )


def make_pipeline(
    network: Network, device: Device, input_dtype: torch.dtype, seam: Seam
) -> Pipeline:
    """What runs `network`, placed on the device, from bytes to bytes."""

    def compute(levels: Tensor, reduce: int) -> tuple[Tensor, Tensor]:
        result = network(to_pixels(levels, input_dtype))
        is_finite = find_finite(result)
        return to_levels(result, reduce), is_finite

    return Pipeline(compute, device.torch_device, seam)


def _set_up_cuda() -> None:
    """float32 means float32, and few shapes come so often that searching kernels for them pays."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = True


def _place(network: nn.Module, device: Device) -> nn.Module:
    if device.dtype == torch.float32 and not device.is_cuda:
        return network
    return copy.deepcopy(network).to(device=device.torch_device, dtype=device.dtype)


def to_input(windows: Sequence[Window], device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 `[h, w, 3]` each to channels-last `[N, 3, h, w]` in 0..1; they travel as bytes."""
    if len(windows) == 1:
        levels = np.require(windows[0][None], requirements=("C", "W"))  # torch warns of any other
    else:
        levels = np.stack(windows)
    return to_pixels(torch.from_numpy(levels).to(device), dtype)


def to_pixels(levels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 `[N, h, w, 3]` to channels-last `[N, 3, h, w]` in 0..1."""
    return levels.permute(0, 3, 1, 2).to(dtype).div_(255)


def to_windows(result: Tensor, reduce: int) -> list[Window]:
    """The same, each window by itself in host memory."""
    return list(to_levels(result, reduce).cpu().numpy())


def to_levels(result: Tensor, reduce: int) -> Tensor:
    """`[N, 3, h, w]`, which may be overwritten, to uint8 `[N, h / reduce, w / reduce, 3]`:
    clamp, average, round.
    """
    pixels = result.float().clamp_(0, 1)
    if reduce > 1:
        pixels = F.avg_pool2d(pixels, reduce)
    return pixels.mul_(255).add_(0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def find_finite(result: Tensor) -> Tensor:
    """Whether each of `[N, ...]` is finite throughout: bool `[N]`."""
    return result.isfinite().flatten(1).all(1)
