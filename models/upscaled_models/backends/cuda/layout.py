"""The memory layout of the kernel's inputs and outputs (see `conv3x3.cu`).

Planes: 16-bit floats `[N, C / 8, rows, pitch, 8]`: eight channels of a pixel are 16 bytes, and
around each plane lies a ring of one zero pixel. Trunks: the same in float32, their ring never read.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from upscaled_models.backends.base import round_up

PLANE_CHANNELS: Final = 8
CHUNK_CHANNELS: Final = 16
TILE_WIDTH_PX: Final = 64
TILE_HEIGHT_PX: Final = 16
"""Size of the largest tile of a block of threads, which reads all of it, also past an edge."""

RING_PX: Final = 1
LANES: Final = 32


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """Pixels of a plane: `height` x `width` of them within `rows` x `pitch`."""

    height: int
    width: int

    @property
    def rows(self) -> int:
        return round_up(self.height, TILE_HEIGHT_PX) + 2 * RING_PX

    @property
    def pitch(self) -> int:
        return round_up(self.width, TILE_WIDTH_PX) + 2 * RING_PX

    def doubled(self) -> "PlaneLayout":
        return PlaneLayout(2 * self.height, 2 * self.width)


def make_planes(
    count: int, channels: int, layout: PlaneLayout, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Allocate planes for `count` images, the ring zero and the pixels not set."""
    shape = (count, channels // PLANE_CHANNELS, layout.rows, layout.pitch, PLANE_CHANNELS)
    planes = torch.empty(shape, dtype=dtype, device=device)
    for edge in (0, layout.height + RING_PX):
        planes[:, :, edge].zero_()
    for edge in (0, layout.width + RING_PX):
        planes[:, :, :, edge].zero_()
    return planes


def make_trunk(count: int, channels: int, layout: PlaneLayout, device: torch.device) -> Tensor:
    """Allocate a trunk for `count` images, not set."""
    shape = (count, channels // PLANE_CHANNELS, layout.rows, layout.pitch, PLANE_CHANNELS)
    return torch.empty(shape, dtype=torch.float32, device=device)


def to_planes(pixels: Tensor, layout: PlaneLayout, dtype: torch.dtype) -> Tensor:
    """Copy `[N, C, h, w]` into planes, channels filled up with zeros to whole chunks."""
    count, channels = pixels.shape[:2]
    planes = make_planes(count, round_up(channels, CHUNK_CHANNELS), layout, dtype, pixels.device)
    inside = planes[:, :, RING_PX : RING_PX + layout.height, RING_PX : RING_PX + layout.width]
    if channels % CHUNK_CHANNELS:
        inside.zero_()
    for plane in range(-(-channels // PLANE_CHANNELS)):
        part = pixels[:, plane * PLANE_CHANNELS : (plane + 1) * PLANE_CHANNELS]
        inside[:, plane, :, :, : part.shape[1]] = part.permute(0, 2, 3, 1)
    return planes


def pack_weights(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Pack `[O, I, 3, 3]` as fragments of m16n8k16 products `[chunks, 9, O / 8, 32, 4]` in `dtype`.

    A lane holds, of its output channel `lane / 4`, the input channels `2 * (lane % 4)` and the
    next, then those 8 further on (PTX ISA, "Matrix Fragments for mma.m16n8k16"). O is a multiple
    of 8; inputs are filled up with zeros to whole chunks.
    """
    outputs, inputs = weight.shape[:2]
    chunks = -(-inputs // CHUNK_CHANNELS)
    padded = weight.new_zeros((outputs, chunks * CHUNK_CHANNELS, 9))
    padded[:, :inputs] = weight.reshape(outputs, inputs, 9)
    # [column, channel of 8, chunk, half of 16, pair, of pair, tap]
    split = padded.reshape(outputs // 8, 8, chunks, 2, 4, 2, 9)
    fragments = split.permute(
        2, 6, 0, 1, 4, 3, 5
    )  # chunk, tap, column, channel, pair, half, of pair
    return fragments.reshape(chunks, 9, outputs // 8, LANES, 4).to(dtype).contiguous()
