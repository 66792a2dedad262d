"""Tilings of the kernel for a GPU: the warps, tile and shared memory of a block of threads."""

from dataclasses import dataclass
from typing import Final

ROWS_OF_WARP: Final = 4
COLS_OF_WARP: Final = 32
UNIT_BYTES: Final = 16
MAX_STAGES: Final = 4
MIN_STAGES: Final = 2
RESERVED_BYTES: Final = 1024
"""Shared memory of each block that the driver keeps for itself."""

_BLOCKS_AND_WARPS: Final = {1: (1, 1), 4: (4, 1), 6: (3, 2), 8: (4, 2)}
"""By columns of 8 output channels: how many a warp computes, and how many warps share them."""

COLUMNS: Final = tuple(_BLOCKS_AND_WARPS)
"""Numbers of columns of 8 output channels that the kernel can compute."""


@dataclass(frozen=True, slots=True)
class KernelTiling:
    """The tiling of a block of threads.

    warps: of a block; of them warps_n side by side along output channels, warps_x along x, the
    others along y. blocks: columns of 8 output channels that a warp makes. stages: slices of input
    in shared memory. resident: blocks that share a multiprocessor.
    """

    warps: int
    warps_n: int
    warps_x: int
    blocks: int
    stages: int
    resident: int

    @property
    def width_px(self) -> int:
        return COLS_OF_WARP * self.warps_x

    @property
    def height_px(self) -> int:
        return ROWS_OF_WARP * (self.warps // self.warps_n // self.warps_x)

    @property
    def stage_bytes(self) -> int:
        """Return the bytes of two planes of a tile with its ring, and of the weights of 9 taps."""
        pixels = 2 * (self.height_px + 2) * (self.width_px + 2)
        return (pixels + 9 * self.warps_n * self.blocks * UNIT_BYTES) * UNIT_BYTES

    @property
    def shared_bytes(self) -> int:
        return self.stages * self.stage_bytes


def choose_tiling(columns: int, shared_bytes: int, block_bytes: int) -> KernelTiling | None:
    """Choose the tiling for `columns` x 8 channels; None where shared memory is too small.

    Two blocks of four warps where each has memory for two stages; else one of eight. shared_bytes:
    of a multiprocessor; block_bytes: the most of it for one block.
    """
    blocks, warps_n = _BLOCKS_AND_WARPS[columns]
    for warps, warps_x, resident in ((4, 1, 2), (8, 2, 1)):
        one = KernelTiling(warps, warps_n, warps_x, blocks, 1, resident)
        most_bytes = min(block_bytes, shared_bytes // resident - RESERVED_BYTES)
        stages = min(MAX_STAGES, most_bytes // one.stage_bytes)
        if stages >= MIN_STAGES:
            return KernelTiling(warps, warps_n, warps_x, blocks, stages, resident)
    return None
