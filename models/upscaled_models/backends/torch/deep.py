"""Windows of 16 bits a channel, on their way into torch and back.

They become floating point on the host: Apple's GPUs have no such integers, others little for them.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upscaled_models.backends.base import Window

HIGHEST = 65_535


def to_deep_input(window: Window, device: torch.device) -> Tensor:
    """uint16 `[h, w, 3]` to channels-last float32 `[1, 3, h, w]` in 0..1."""
    levels = torch.from_numpy(window[None].astype(np.float32))
    return levels.to(device).permute(0, 3, 1, 2).div_(HIGHEST)


def to_deep_window(result: Tensor, reduce: int) -> Window:
    """`[1, 3, h, w]`, which may be overwritten, to uint16 `[h / reduce, w / reduce, 3]`: clamp,
    average, round.
    """
    pixels = result.float().clamp_(0, 1)
    if reduce > 1:
        pixels = F.avg_pool2d(pixels, reduce)
    levels = pixels.mul_(HIGHEST).add_(0.5)[0].permute(1, 2, 0).contiguous()
    return np.asarray(levels.cpu().numpy().astype(np.uint16))
