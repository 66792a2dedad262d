"""Transparency that a file tells by a colour instead of a channel."""

import numpy as np
from numpy.typing import NDArray

from upscaled.image.pixels import Pixels


def alpha_from_key(
    is_key: NDArray[np.bool_], kind: type[np.uint8 | np.uint16] = np.uint8
) -> Pixels:
    """The alpha plane of a colour key: transparent where the mask `[H, W]` holds, else opaque."""
    return np.where(is_key, kind(0), kind(np.iinfo(kind).max))
