"""Networks as steps of the kernel: rrdb, compact (srvgg) and plain.

Each is called with float32 `[N, 3, h, w]` in 0..1 and gives float32 `[N, 3, h * s, w * s]`, not
clamped, as the networks of `networks` do, whose layers they are made of. The trunk of an
RRDB network, a sum of many small residuals, is kept in float32; everything else is 16 bits.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.backends.base import LoadedModel
from upscaled_models.backends.cuda.kernel import Kernel
from upscaled_models.backends.cuda.layout import Grid, make_planes, make_trunk, to_planes
from upscaled_models.backends.cuda.step import COLUMNS, Launcher, Layer, Step, make_layer
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, build_engine
from upscaled_models.families.plain import SLOPE
from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE
from upscaled_models.networks import compact, plain, rrdb

LEAST_SIDE_PX: Final = 4
"""Side of a picture that every network can fold."""

MAX_CHANNELS: Final = 8 * max(COLUMNS)


class KernelNetwork(Protocol):
    def __call__(self, pixels: Tensor) -> Tensor: ...


def open_cuda(model: LoadedModel, device: Device) -> TorchEngine:
    """Open a model in the device's 16-bit dtype, all of its kernels compiled.

    Raises:
        BackendUnavailable: the kernel cannot be compiled for this GPU.
    """
    kernel = Kernel(device.torch_device, device.dtype)
    kernel.prepare(list_steps(model.network, device.dtype))
    network = build_kernel_network(model.network, device.dtype, device.torch_device, kernel)
    return build_engine(model, device, network, backend="kernel")


def can_be_built(network: nn.Module) -> bool:
    """Whether the kernel supports all layers of a network."""
    if not isinstance(network, rrdb.RRDBNet | compact.SRVGGNetCompact | plain.PlainNet):
        return False
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    inner = {layer.out_channels for layer in layers[:-1]} | {layers[1].in_channels}
    return layers[-1].out_channels <= MAX_CHANNELS and all(
        channels <= MAX_CHANNELS and channels % 16 == 0 and channels // 8 in COLUMNS
        for channels in inner
    )


def build_kernel_network(
    network: nn.Module, dtype: torch.dtype, device: torch.device, launch: Launcher
) -> KernelNetwork:
    """Build a network whose layers lie on `device` in `dtype`; `can_be_built` must be true.

    network: float32, on the CPU; not kept.
    """
    if isinstance(network, rrdb.RRDBNet):
        return _build_rrdb(network, dtype, device, launch)
    if isinstance(network, compact.SRVGGNetCompact):
        return _build_compact(network, dtype, device, launch)
    if isinstance(network, plain.PlainNet):
        return _build_plain(network, dtype, device, launch)
    raise TypeError(f"no kernel runs a {type(network).__name__}")


@torch.inference_mode()
def list_steps(network: nn.Module, dtype: torch.dtype) -> list[Step]:
    """List a network's steps, on tensors without values, so that they can be compiled ahead."""
    steps: list[Step] = []
    nowhere = torch.device("meta")
    build_kernel_network(network, dtype, nowhere, steps.append)(
        torch.empty((1, 3, LEAST_SIDE_PX, LEAST_SIDE_PX), device=nowhere)
    )
    return steps


@dataclass(frozen=True, slots=True)
class Rrdb:
    """layers: by the names of `upscaled_models.networks.rrdb.RRDBNet`'s modules."""

    layers: dict[str, Layer]
    blocks: int
    unshuffle: int
    dtype: torch.dtype
    launch: Launcher

    def __call__(self, pixels: Tensor) -> Tensor:
        if self.unshuffle > 1:
            pixels = F.pixel_unshuffle(pixels, self.unshuffle)
        count, _, height, width = pixels.shape
        grid = Grid(height, width)
        features = self._run_trunk(to_planes(pixels, grid, self.dtype), count, grid)
        return self._enlarge(features, count, grid)

    def _run_trunk(self, source: Tensor, count: int, grid: Grid) -> Tensor:
        """Compute the planes of the features.

        Two hold the trunk in turn, for its old values are still read while the new ones are
        written; in float32 each pixel is read where it is written.
        """
        layers = self.layers
        features = layers["conv_first"].columns * 8
        growth = layers["body.0.rdb1.conv1"].columns * 8
        device = source.device
        old, new = (make_planes(count, features, grid, self.dtype, device) for _ in range(2))
        grown = make_planes(count, 4 * growth, grid, self.dtype, device)
        shallow, outer, inner = (make_trunk(count, features, grid, device) for _ in range(3))
        self.launch(Step(layers["conv_first"], (source,), grid, planes=old, trunk=shallow))
        before = shallow
        for index in range(self.blocks):
            for number, residual in ((1, before), (2, inner), (3, inner)):
                self._grow(f"body.{index}.rdb{number}", old, grown, grid)
                is_last = number == 3
                scale = RESIDUAL_SCALE
                self.launch(
                    Step(
                        layers[f"body.{index}.rdb{number}.conv5"],
                        (old, grown),
                        grid,
                        planes=new,
                        trunk=outer if is_last else inner,
                        residual=residual,
                        shortcut=before if is_last else None,
                        gain=scale * scale if is_last else scale,
                        residual_gain=scale if is_last else 1.0,
                    )
                )
                old, new = new, old
            before = outer
        self.launch(Step(layers["conv_body"], (old,), grid, planes=new, residual=shallow))
        return new

    def _grow(self, name: str, seen: Tensor, grown: Tensor, grid: Grid) -> None:
        planes = self.layers[f"{name}.conv1"].columns
        for number in range(4):
            self.launch(
                Step(
                    self.layers[f"{name}.conv{number + 1}"],
                    (seen, grown[:, : number * planes]) if number else (seen,),
                    grid,
                    planes=grown[:, number * planes : (number + 1) * planes],
                )
            )

    def _enlarge(self, features: Tensor, count: int, grid: Grid) -> Tensor:
        channels, device = features.shape[1] * 8, features.device
        for name in ("conv_up1", "conv_up2"):
            grid = grid.doubled()
            planes = make_planes(count, channels, grid, self.dtype, device)
            self.launch(Step(self.layers[name], (features,), grid, planes, is_doubled=True))
            features = planes
        sharp = make_planes(count, channels, grid, self.dtype, device)
        self.launch(Step(self.layers["conv_hr"], (features,), grid, planes=sharp))
        picture = torch.empty((count, 3, grid.height, grid.width), device=device)
        self.launch(Step(self.layers["conv_last"], (sharp,), grid, picture=picture))
        return picture


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers one after the other at one size; the last one's result is float32."""

    layers: tuple[Layer, ...]
    channels_out: int
    dtype: torch.dtype
    launch: Launcher

    def __call__(self, pixels: Tensor) -> Tensor:
        """`[N, C, h, w]` to `[N, channels_out, h, w]`."""
        count, _, height, width = pixels.shape
        grid, device = Grid(height, width), pixels.device
        source = to_planes(pixels, grid, self.dtype)
        *inner, last = self.layers
        channels = inner[0].columns * 8
        planes = [make_planes(count, channels, grid, self.dtype, device) for _ in range(2)]
        for index, layer in enumerate(inner):
            self.launch(Step(layer, (source,), grid, planes=planes[index % 2]))
            source = planes[index % 2]
        picture = torch.empty((count, self.channels_out, height, width), device=device)
        self.launch(Step(last, (source,), grid, picture=picture))
        return picture


@dataclass(frozen=True, slots=True)
class Compact:
    stack: Stack
    scale: int

    def __call__(self, pixels: Tensor) -> Tensor:
        nearest = F.interpolate(pixels, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(self.stack(pixels), self.scale).add_(nearest)


@dataclass(frozen=True, slots=True)
class Plain:
    stack: Stack
    scale: int

    def __call__(self, pixels: Tensor) -> Tensor:
        residual = F.pixel_shuffle(self.stack(plain.differences(pixels)), self.scale)
        skip = F.interpolate(pixels, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return residual.add_(skip)


def _build_rrdb(
    network: rrdb.RRDBNet, dtype: torch.dtype, device: torch.device, launch: Launcher
) -> Rrdb:
    leaky = ("conv1", "conv2", "conv3", "conv4", "conv_up1", "conv_up2", "conv_hr")
    layers = {
        name: make_layer(layer, dtype, device, LEAK if name.rpartition(".")[2] in leaky else 1.0)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    return Rrdb(layers, len(network.body), network.unshuffle, dtype, launch)


def _build_compact(
    network: compact.SRVGGNetCompact, dtype: torch.dtype, device: torch.device, launch: Launcher
) -> Compact:
    *inner, last = (layer for layer in network.body if isinstance(layer, nn.Conv2d))
    slopes = [_slope(layer) for layer in network.body if not isinstance(layer, nn.Conv2d)]
    layers = [
        make_layer(layer, dtype, device, slope) for layer, slope in zip(inner, slopes, strict=True)
    ]
    stack = Stack((*layers, make_layer(last, dtype, device)), last.out_channels, dtype, launch)
    return Compact(stack, network.upscale)


def _build_plain(
    network: plain.PlainNet, dtype: torch.dtype, device: torch.device, launch: Launcher
) -> Plain:
    layers = [make_layer(each, dtype, device, SLOPE) for each in (network.head, *network.body)]
    tail = make_layer(network.tail, dtype, device)
    return Plain(Stack((*layers, tail), network.tail.out_channels, dtype, launch), network.scale)


def _slope(activation: nn.Module) -> float | Tensor:
    if isinstance(activation, nn.PReLU):
        return activation.weight.detach()
    return activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
