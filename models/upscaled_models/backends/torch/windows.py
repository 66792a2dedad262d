"""Windows of pixels to torch tensors and back, in 8 bits, and in 16 as floats from the host on.

Apple's GPUs have no integers of 16 bits, and others support few operations on them.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upscaled_models.backends.base import Window

HIGHEST: Final = 65_535


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
