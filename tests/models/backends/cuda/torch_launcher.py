"""The kernel's steps by torch, anywhere: what the kernel is to compute, in float32.

And the way back from its layout, which nothing but a test takes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from upscaled_models.backends.cuda.layout import (
    CHUNK_CHANNELS,
    PLANE_CHANNELS,
    RING_PX,
    PlaneLayout,
)
from upscaled_models.backends.cuda.step import KernelStep


def launch_with_torch(step: KernelStep) -> None:
    layout = step.layout
    result = _leak(_convolve(step), step.layer.slope)
    if step.residual is not None:
        result = result * step.gain + from_planes(step.residual, layout) * step.residual_gain
    if step.shortcut is not None:
        result = result + from_planes(step.shortcut, layout) * step.shortcut_gain
    for planes in (step.planes, step.trunk):
        if planes is not None:
            _write(result, planes, layout)
    if step.picture is not None:
        step.picture.copy_(result[:, : step.picture.shape[1]])


def _convolve(step: KernelStep) -> Tensor:
    layout = step.layout
    seen = PlaneLayout(layout.height // 2, layout.width // 2) if step.is_doubled else layout
    sources = torch.cat([from_planes(source, seen) for source in step.sources], dim=1).float()
    if step.is_doubled:
        sources = F.interpolate(sources, scale_factor=2, mode="nearest")
    weights = unpack_weights(step.layer.weights).float()
    return F.conv2d(sources, weights, step.layer.bias, padding=1)


def _leak(result: Tensor, slope: Tensor) -> Tensor:
    return torch.where(result >= 0, result, result * slope[:, None, None])


def _write(result: Tensor, planes: Tensor, layout: PlaneLayout) -> None:
    count, channels = result.shape[:2]
    split = result.reshape(count, channels // PLANE_CHANNELS, PLANE_CHANNELS, *result.shape[2:])
    rows = slice(RING_PX, RING_PX + layout.height)
    columns = slice(RING_PX, RING_PX + layout.width)
    planes[:, :, rows, columns] = split.permute(0, 1, 3, 4, 2).to(planes.dtype)


def from_planes(planes: Tensor, layout: PlaneLayout) -> Tensor:
    """The pixels of planes or of a trunk: `[N, C, h, w]`."""
    inside = planes[:, :, RING_PX : RING_PX + layout.height, RING_PX : RING_PX + layout.width]
    count, _, height, width, _ = inside.shape
    return inside.permute(0, 1, 4, 2, 3).reshape(count, -1, height, width)


def unpack_weights(packed: Tensor) -> Tensor:
    """Undo `pack_weights`, its inputs still filled up: `[O, 16 * chunks, 3, 3]`."""
    chunks, _, columns, _, _ = packed.shape
    split = packed.reshape(chunks, 9, columns, 8, 4, 2, 2).permute(2, 3, 0, 5, 4, 6, 1)
    return split.reshape(columns * 8, chunks * CHUNK_CHANNELS, 3, 3)
